"""`geosweep models`: what is packaged, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ._console import guarded, out

app = typer.Typer(help="Packaged models: what they find and how well.", no_args_is_help=True)


@app.command("list")
@guarded
def models_list() -> None:
    """List packaged models."""
    from ..models import list_models

    table = Table(title="Packaged models")
    for column in ("name", "kind", "labels", "licence", "what it is"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "kind"))
    for info in list_models():
        table.add_row(info.name, info.kind, ", ".join(info.labels), info.licence, info.description)
    out.print(table)


@app.command("show")
@guarded
def models_show(
    name: Annotated[str, typer.Argument(help="Name, file or folder.", show_default=False)],
) -> None:
    """Show a model's licence, settings and measured accuracy."""
    from rich.markdown import Markdown

    from ..models import model_info

    info = model_info(name)
    table = Table(show_header=False)
    for key in (
        "name",
        "version",
        "kind",
        "licence",
        "window_size",
        "gsd",
        "score_threshold",
        "nms_iou",
        "empty_threshold",
    ):
        value = getattr(info, key)
        table.add_row(key, "–" if value is None else str(value))
    table.add_row("labels", ", ".join(info.labels))
    out.print(table)
    # The card has the measured accuracy; a user's own file may carry figures without one.
    if info.card is None:
        for key, value in info.metrics.items():
            out.print(f"{key}: {value}", markup=False)
    else:
        out.print(Markdown(Path(str(info.card)).read_text(encoding="utf-8")))


@app.command("export")
@guarded
def models_export(
    name: Annotated[str, typer.Argument(help="Name, file or folder.", show_default=False)],
    path: Annotated[
        Path, typer.Option("-o", "--output", help="File to write: .onnx, or .xml for OpenVINO.")
    ],
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of its images in pixels; default: the model's windows."),
    ] = None,
) -> None:
    """Write a detector as a file for ONNX Runtime or OpenVINO, up to but without NMS."""
    from ..models import export_detector

    written = export_detector(name, path, size=size)
    out.print(f"{written} (with {written.with_suffix('.json').name})", soft_wrap=True)
