"""Counts that the clock has no part in, held against committed ones: the guard of `make bench-smoke`.

A run that fetches a byte twice, decodes a block again, copies windows once more, calls Ray or S3 more
often or holds more memory than it did is refused, on any machine, however busy. The values stand in
`smoke.json`; ``make bench-smoke ACCEPT=1`` (``python -m benchmarks.smoke accept``) writes them anew.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._calls import count_calls, count_requests
from benchmarks._guard import Measure, accept, committed, is_better, refusals
from benchmarks._memory import count_memory
from benchmarks._reading import count_reading, write_cogs
from tests.s3server import weed_works


def main(*, accepting: bool = False) -> int:
    """Count, compare, and say what is worse; 1 if anything is."""
    console = Console()
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory(prefix="geosweep-smoke-") as name:
        measures += count_reading(write_cogs(Path(name)))
        measures += count_memory(_folder(name, "memory"))
        measures += count_calls(_folder(name, "calls"))
        works, reason = weed_works()
        if works:
            measures += count_requests(_folder(name, "requests"))
        else:
            console.print(f"Requests to S3 are not counted: {reason}.")
    if accepting:
        accept(measures)
    was = committed()
    console.print(_table(measures, was))
    worse = refusals(measures, was)
    if worse:
        console.print("\nMore than it was:", style="bold red")
        for sentence in worse:
            console.print(f"  {sentence}", soft_wrap=True)
        console.print(
            "Find what does more than it did. If that is meant, make bench-smoke ACCEPT=1 writes these "
            "values to benchmarks/smoke.json, for the change's commit to explain.",
            soft_wrap=True,
        )
    return 1 if worse else 0


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent, name)
    folder.mkdir()
    return folder


def _table(measures: list[Measure], was: dict[str, float]) -> Table:
    table = Table(title="counts, the fewer the better")
    for column in ("what", "committed", "allowed", "is"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for measure in measures:
        name, value, tolerance = measure
        before = was.get(name)
        # Better is no fault, but holds nothing until it is accepted.
        note = "  (less: accept it?)" if is_better(measure, was) else ""
        table.add_row(
            name + note,
            "" if before is None else f"{before:.4g}",
            f"+{tolerance:.0%}",
            f"{value:.4g}",
            style="bold red" if refusals([measure], was) else None,
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main(accepting=sys.argv[1:] == ["accept"]))
