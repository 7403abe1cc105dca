"""`geosweep update`: one pass over what has changed in a job's source."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import err, guarded, out
from ._tables import result_table

if TYPE_CHECKING:
    from .updating import UpdateResult

_SHOWN = 20


@guarded
def update(
    job_file: Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)],
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Search a STAC API from this time instead of the latest `updated` it gave; .. for all.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Withdraw results of scenes that the source lost.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo all, also with other models or settings.")
    ] = False,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="The same, and keep older results as versions.")
    ] = False,
    engine: Annotated[str, typer.Option(help="ray (actors) or local (this process).")] = "ray",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, such as auto; default: a local one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report, for scripts.")] = False,
) -> None:
    """Sweep what is new or has changed in a job's source. For schedules: safe at any time.

    A pass that was cut off is finished by the next; of two at once, one works. Exit code 0 also where
    there is nothing to do.
    """
    from .job import Job
    from .updating import update as update_output

    result = update_output(
        Job.from_yaml(job_file),
        since=since,
        prune=prune,
        overwrite=overwrite,
        keep_old=keep_old,
        engine=engine,  # type: ignore[arg-type]
        address=address,
    )
    if result.elsewhere is not None:
        # One line for a schedule's log, however narrow that takes itself to be.
        told = f"geosweep: {result.elsewhere} is at work on {result.output}; nothing to do here."
        err.print(told, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps(result.report(), indent=2) + "\n")
    elif result.elsewhere is None:
        _print(result)
    for failure in result.failures:
        err.print(f"failed: {failure.scene_id}: {failure.error}", markup=False, soft_wrap=True)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _print(result: UpdateResult) -> None:
    counts = result.counts
    table = result_table(result)
    kinds = ("new", "changed", "removed", "unchanged")
    text = ", ".join(f"{counts[name]} {name}" for name in kinds)
    if counts["withdrawn"]:
        text += f"; {counts['withdrawn']} withdrawn"
    table.add_row("source", text)
    out.print(table)
    if len(result.removed) > counts["withdrawn"]:
        for scene_id in result.removed[:_SHOWN]:
            out.print(f"removed: {scene_id}", markup=False, highlight=False, soft_wrap=True)
        if len(result.removed) > _SHOWN:
            out.print(f"… and {len(result.removed) - _SHOWN} more")
        out.print("The source no longer has these; --prune withdraws their results.")
