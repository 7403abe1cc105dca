"""`geosweep density`: detections per cell of a map grid, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ._console import err, guarded, out
from ._grid_spec import EQUAL_AREA, GridSpec


@guarded
def density(
    output: Annotated[str, typer.Argument(help="Output of a run.", show_default=False)],
    cell: Annotated[float, typer.Option(help="Side of a cell in units of the CRS.")] = 100.0,
    crs: Annotated[str, typer.Option(help="CRS of the grid.")] = EQUAL_AREA,
    by: Annotated[
        str | None,
        typer.Option(help="Column to count each value of, such as cropmodel_label."),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="GeoTIFF to write; default OUTPUT/density/density.tif."
        ),
    ] = None,
) -> None:
    """Count detections by cells of equal area: number, mean score and area, as a COG."""
    from .grid_files import write_density

    with err.status("Counting detections …"):
        made = write_density(output, path, cell=cell, crs=crs, by=by)
    unit = GridSpec(cell, crs).unit
    table = Table(title=f"density: {made.path}", show_header=False)
    table.add_row("grid", f"{made.shape[0]:,} × {made.shape[1]:,} cells of {cell:g} {unit}, {crs}")
    table.add_row("bands", "\n".join(made.bands))
    table.add_row("detections", f"{made.detections:,}")
    if made.outside:
        table.add_row("without a place in the grid's CRS", f"{made.outside:,}")
    table.add_row("STAC item", made.item)
    out.print(table)
