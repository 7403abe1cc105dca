"""Grids of detections as xarray datasets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog.errors import OutputError
from ._cells import TILE
from ._grid_spec import EQUAL_AREA, GridSpec, layer_values
from .grid import DetectionGrid, gather
from .outputs import crs_of_rows, open_output

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from ..catalog import Storage
    from ..catalog.sharedfiles import Member
    from ._grid_spec import Layer

_MOST_BYTES = 4 << 30


def density_grid(
    output: str | Path, *, cell: float = 100.0, crs: str = EQUAL_AREA, by: str | None = None
) -> xr.Dataset:
    """Count an output's detections by the cells of a map grid.

    A detection counts in the cell where its centroid lies; cells include their upper and left edges.
    The grid is as small as the detections allow, and its corners are multiples of `cell`, so that
    grids of one cell size and CRS fit on each other. Rows are streamed.

    Parameters
    ----------
    output
        Folder or ``s3://bucket/prefix`` that `run` or ``geosweep detect`` wrote.
    cell
        Side of a cell in units of `crs`.
    crs
        Of the grid; by default the world in metres, with cells of equal area.
    by
        Text column such as ``cropmodel_label`` whose values are also counted each by itself.

    Returns
    -------
    xarray.Dataset
        Dimensions (y, x), coordinates of the cells' centres and the CRS (`spatial_ref`; ``.odc.geobox``).
        ``count`` (int64) and ``area_m2_sum`` are 0 where nothing is; ``score_mean`` and
        ``area_m2_mean`` (float64) are NaN there. With `by`, ``count_by`` (int64) has that column's
        values, sorted, as its first dimension; ``(none)`` stands for null. The sum of ``count``, plus
        the attribute ``detections_outside`` (they have no place in `crs`; a warning says so), is the
        number of the output's rows. Without any detection both dimensions have length 0.

    Raises
    ------
    OutputError
        If `output` is no output of geosweep, is in pixels, can't be read, or makes a grid that is too
        large for memory.
    JobError
        If an argument makes no sense.
    """
    spec = GridSpec(cell, crs, by)
    storage, collection = open_output(output)
    return grid_dataset(storage, None, crs_of_rows(collection), spec)


def grid_dataset(
    storage: Storage, scenes: Iterable[Member] | None, source_crs: str | None, spec: GridSpec
) -> xr.Dataset:
    """The dataset of `density_grid`, over the rows of some scenes; None for all."""
    import xarray as xr

    with tempfile.TemporaryDirectory(prefix="geosweep-") as folder:
        grid = gather(storage, scenes, source_crs, spec, Path(folder))
        arrays = _filled(grid)
    layers = grid.layers
    variables: dict[str, Any] = {}
    for layer, array in zip(layers, arrays, strict=True):
        if layer.value is None:
            attributes = {"long_name": layer.text} | ({"units": layer.unit} if layer.unit else {})
            variables[layer.name] = (("y", "x"), array, attributes)
    coordinates = _coordinates(grid)
    if spec.by is not None:
        counted = [
            array for layer, array in zip(layers, arrays, strict=True) if layer.value is not None
        ]
        stack = np.stack(counted) if counted else np.zeros((0, *grid.shape), np.int64)
        text = {"long_name": f"number of detections by {spec.by}"}
        variables["count_by"] = ((spec.by, "y", "x"), stack, text)
        coordinates[spec.by] = [layer.value for layer in layers if layer.value is not None]
    dataset = xr.Dataset(
        variables,
        coordinates,
        attrs={"cell": spec.cell, "crs": spec.crs, "detections_outside": grid.outside},
    )
    for array in dataset.data_vars.values():
        array.encoding["grid_mapping"] = "spatial_ref"
    return dataset


def _filled(grid: DetectionGrid) -> list[NDArray[Any]]:
    """Each layer as one array."""
    rows, columns = grid.shape
    layers = grid.layers
    # Those by value stand in memory twice, for a moment, when they are stacked.
    need = 8 * rows * columns * (len(layers) + sum(layer.value is not None for layer in layers))
    if need > _MOST_BYTES:
        raise OutputError(
            f"The grid has {rows:,} × {columns:,} cells in {len(layers)} layers, {need / 1e9:,.1f} GB "
            f"of memory; take a cell larger than {grid.spec.cell:g}, or write a file with geosweep "
            "density and open parts of it."
        )
    arrays = [_empty(layer, (rows, columns)) for layer in layers]
    first_row, first_column = grid.origin
    for tile in grid.tiles():
        top, left = tile.row - first_row, tile.column - first_column
        inside = slice(max(top, 0), top + TILE), slice(max(left, 0), left + TILE)
        cut = slice(max(-top, 0), rows - top), slice(max(-left, 0), columns - left)
        for layer, array in zip(layers, arrays, strict=True):
            array[inside] = layer_values(layer, tile)[cut]
    return arrays


def _empty(layer: Layer, shape: tuple[int, int]) -> NDArray[Any]:
    if layer.mean:
        return np.full(shape, np.nan)
    return np.zeros(shape, np.int64 if layer.name.startswith("count") else np.float64)


def _coordinates(grid: DetectionGrid) -> dict[Any, Any]:
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    rows, columns = grid.shape
    # odc-geo knows no empty boxes; one cell has the same CRS.
    box = GeoBox((max(rows, 1), max(columns, 1)), grid.transform, grid.spec.crs)
    made = xr_coords(box)
    y, x = (made[name] for name in box.dimensions)
    return {
        "y": ("y", y.values[:rows], y.attrs),
        "x": ("x", x.values[:columns], x.attrs),
        "spatial_ref": made["spatial_ref"],
    }
