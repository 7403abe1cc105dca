"""`geosweep catalog compact`: few files instead of many."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..catalog.errors import JobError
from ._console import bar, err, guarded, out

if TYPE_CHECKING:
    from .compaction import CompactReport

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_LEAST, _MOST = 1_000_000, 4 << 30


@guarded
def compact(
    output: Annotated[str, typer.Argument(help="Output of a run.", show_default=False)],
    target_size: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Of a data file. Memory is about four times as much at most."
        ),
    ] = "256MiB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Merge small data files into few, spatially sorted ones; safe at any time, safe to repeat."""
    from .compaction import compact as merge_files
    from .outputs import open_output

    size = _bytes(target_size)
    storage, collection = open_output(output)
    with bar("merging") as progress:
        report = merge_files(
            storage, collection, target_size=size, dry_run=dry_run, progress=progress
        )
    if report.holder is not None:
        err.print(
            f"nothing done: {report.holder} is at work on {output}", markup=False, soft_wrap=True
        )
        return
    out.print(_table(report, output, dry_run=dry_run))


def _table(report: CompactReport, output: str, *, dry_run: bool) -> Table:
    table = Table(title=escape(output) + (" (dry run)" if dry_run else ""), show_header=False)
    done = report.written or report.removed
    files = f"{report.files_before:,} → {report.files_after:,}"
    table.add_row("data files", files if report.written else f"{report.files_before:,}")
    if not done:
        table.add_row("", "compact already, nothing to do")
    if report.written:
        about = "about " if dry_run else ""
        table.add_row("merged", f"{report.merged:,} into {about}{report.written:,}")
        table.add_row("scenes", f"{report.scenes:,}")
        table.add_row("rows", f"{report.rows:,}")
        if not dry_run:
            sizes = (f"{size / 1e6:,.1f}" for size in (report.bytes_before, report.bytes_after))
            table.add_row("MB", " → ".join(sizes))
    if report.dead:
        table.add_row("rows of replaced scenes, dropped", f"{report.dead:,}")
    if report.skipped:
        table.add_row("scenes replaced meanwhile, left", f"{report.skipped:,}")
    if done:
        table.add_row("files removed", f"{report.removed:,}")
    if report.left:
        table.add_row("files of unfinished commits, left", f"{report.left:,}")
    return table


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)\s*([KMG]?I?)B?", text.strip().upper())
    try:
        size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    except (ValueError, KeyError):
        size = 0
    if not _LEAST <= size <= _MOST:
        raise JobError(f"The target size is {text!r}; write one from 1MB to 4GiB, such as 256MB.")
    return size
