"""`geosweep catalog publish`: results on a STAC API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ._console import bar, err, guarded, out

if TYPE_CHECKING:
    from ..catalog.publish import PublishReport

_MOST_LINES = 20


@guarded
def publish(
    output: Annotated[str, typer.Argument(help="Output of a run.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            metavar="STAC_API",
            help="Landing page of an API with the transaction extension. Credentials: in the URL, or "
            "a token in GEOSWEEP_STAC_TOKEN.",
            show_default=False,
        ),
    ],
    collection: Annotated[
        str | None, typer.Option(help="Its id there. Default: the job's name.", show_default=False)
    ] = None,
    href: Annotated[
        str | None,
        typer.Option(
            help="URL where others find the output's files. Default: where it is now.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Failed scenes, too.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete items there that the output hasn't got.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Bring an output's collection and items to a STAC API; safe to repeat."""
    from ..catalog import publish_output
    from .outputs import open_output

    storage, document = open_output(output)
    with bar("comparing" if dry_run else "publishing") as progress:
        report = publish_output(
            storage,
            document,
            to,
            collection_id=collection,
            href=href,
            failed=failed,
            prune=prune,
            dry_run=dry_run,
            progress=progress,
        )
    for item_id, reason in report.problems[:_MOST_LINES]:
        _say(f"refused: {item_id}: {reason}")
    if report.refused > _MOST_LINES:
        _say(f"refused: {report.refused - _MOST_LINES} more")
    if "://" not in report.base:
        _say(
            f"warning: the items point to {report.base} on this machine, where others can't read: "
            "say where they find the files with --href"
        )
    out.print(_table(report, collection or str(document["id"]), dry_run=dry_run))
    if report.refused:
        raise typer.Exit(1)


def _table(report: PublishReport, name: str, *, dry_run: bool) -> Table:
    table = Table(title=escape(name) + (" (dry run)" if dry_run else ""), show_header=False)
    table.add_row("collection", report.collection)
    for what in ("created", "updated", "unchanged", "deleted"):
        table.add_row(f"items {what}", str(getattr(report, what)))
    if report.left_out:
        table.add_row("failed scenes, left out", str(report.left_out))
    if report.refused:
        table.add_row("[red]items refused[/red]", str(report.refused))
    return table


def _say(text: str) -> None:
    err.print(text, markup=False, highlight=False, soft_wrap=True)
