"""`geosweep catalog`: STAC items of plain rasters, and what is done with an output's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ._console import bar, err, guarded, out
from .cli_compact import compact
from .cli_publish import publish

if TYPE_CHECKING:
    from ..catalog.create import CreateReport
    from ..catalog.validate import OutputCheck

_MOST_LINES = 20
_MOST_PROBLEMS = 100

app = typer.Typer(
    help="Make STAC catalogs of rasters; check, compact and publish what a run wrote.",
    no_args_is_help=True,
)


@app.command()
@guarded
def create(
    rasters: Annotated[
        list[str],
        typer.Argument(metavar="DIR|FILES", help="Files, URLs or folders.", show_default=False),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", help="items.parquet (stac-geoparquet) or items.json (ItemCollection)."
        ),
    ],
    datetime: Annotated[
        str | None,
        typer.Option(help="Time of all rasters: 2022-06-01, or START/END. Default: their tag."),
    ] = None,
    datetime_pattern: Annotated[
        str | None, typer.Option(help="Date in the names, such as %Y%m%d.")
    ] = None,
    datetime_from_mtime: Annotated[
        bool,
        typer.Option("--datetime-from-mtime", help="Without a tag, when the file was changed."),
    ] = False,
    cogify: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Convert what is no COG to here; items point there."),
    ] = None,
    checksum: Annotated[
        bool, typer.Option(help="SHA-256 of each file, which reads all of it.")
    ] = True,
) -> None:
    """Make STAC items of plain rasters."""
    from ..catalog import create_catalog

    with bar("converting" if cogify else "reading") as progress:
        report = create_catalog(
            rasters,
            output,
            datetime=datetime,
            datetime_pattern=datetime_pattern,
            datetime_from_mtime=datetime_from_mtime,
            cogify=cogify,
            checksum=checksum,
            progress=progress,
        )
    _warn_of_no_cogs(report)
    for _, reason in report.failed[:_MOST_LINES]:
        _say(f"no item: {reason}")
    if len(report.failed) > _MOST_LINES:
        _say(f"no item: {len(report.failed) - _MOST_LINES} more rasters")
    out.print(_created(report, output, cogify))
    if report.failed:
        raise typer.Exit(1)


@app.command()
@guarded
def validate(
    output: Annotated[str, typer.Argument(help="Output of a run.", show_default=False)],
    offline: Annotated[
        bool, typer.Option("--offline", help="Don't fetch the schemas of STAC extensions.")
    ] = False,
) -> None:
    """Check an output: STAC, GeoParquet, and that all of it agrees."""
    from ..catalog import validate_output
    from .outputs import open_output

    storage, collection = open_output(output)
    check = validate_output(storage, collection, fetch_schemas=not offline)
    out.print(_checked(check, output))
    for note in check.notes:
        _say(f"note: {note}")
    for problem in check.problems[:_MOST_PROBLEMS]:
        _say(f"problem: {problem}")
    more = sum(check.faults.values()) - min(len(check.problems), _MOST_PROBLEMS)
    if more:
        _say(f"problem: {more} more")
    if not check.ok:
        raise typer.Exit(1)


app.command()(publish)
app.command()(compact)


def _checked(check: OutputCheck, output: str) -> Table:
    table = Table(title=escape(output))
    table.add_column("check")
    table.add_column("looked at", justify="right")
    table.add_column("wrong", justify="right")
    for name, count in check.checked.items():
        wrong = check.faults[name]
        table.add_row(name, str(count), f"[red]{wrong}[/red]" if wrong else "0")
    return table


def _created(report: CreateReport, output: str, folder: Path | None) -> Table:
    table = Table(title=escape(output), show_header=False)
    again = f", {report.repeated} named twice" if report.repeated else ""
    table.add_row("rasters", f"{report.total}{again}")
    table.add_row("items", str(report.items))
    if report.failed:
        table.add_row("without an item", str(len(report.failed)))
    if folder is not None:
        there = f", {report.kept} there already" if report.kept else ""
        table.add_row("made COGs", f"{report.converted}{there}")
    if report.not_cog:
        table.add_row("no COGs", str(len(report.not_cog)))
    return table


def _warn_of_no_cogs(report: CreateReport) -> None:
    if not report.not_cog:
        return
    several = len(report.not_cog)
    first = report.not_cog[0][0]
    what = first if several == 1 else f"{several} rasters, such as {first}"
    _say(f"warning: not cloud-optimized: {what}")
    for problem, count in Counter(p for _, faults in report.not_cog for p in faults).most_common(5):
        _say(f"  {problem}" + (f" ({count} rasters)" if several > 1 else ""))
    _say("  --cogify DIR converts without loss and leaves the originals as they are")


def _say(text: str) -> None:
    err.print(text, markup=False, highlight=False, soft_wrap=True)
