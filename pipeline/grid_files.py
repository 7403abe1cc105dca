"""Grids of detections as cloud-optimized GeoTIFFs, each with its STAC item in the output."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ..catalog.errors import JobError, OutputError
from ..catalog.hrefs import public_href
from ._cells import TILE
from ._grid_item import item_of
from ._grid_spec import EQUAL_AREA, GridSpec, layer_values
from .grid import CommittedScenes, DetectionGrid, gather
from .outputs import crs_of_rows, open_output

FOLDER = "density"
_MOST_CELLS = 1 << 34
_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class DensityFile:
    """A grid that was written.

    Parameters
    ----------
    path
        The GeoTIFF; where there is no local one, its URL.
    item
        Key of its STAC item in the output.
    shape
        (rows, columns).
    bands
        Their descriptions.
    detections
        How many are in the grid.
    outside
        How many have no place in its CRS.
    """

    path: str
    item: str
    shape: tuple[int, int]
    bands: tuple[str, ...]
    detections: int
    outside: int


def write_density(
    output: str | Path,
    path: str | Path | None = None,
    *,
    cell: float = 100.0,
    crs: str = EQUAL_AREA,
    by: str | None = None,
) -> DensityFile:
    """Write the grid of `density_grid` as a cloud-optimized GeoTIFF, with a STAC item in the output.

    Rows are streamed and cells written tile by tile, so memory depends neither on the number of
    detections nor on the size of the grid.

    Parameters
    ----------
    output
        Folder or ``s3://bucket/prefix`` that `run` or ``geosweep detect`` wrote.
    path
        The GeoTIFF; None for ``density/density.tif`` in the output. The item is
        ``density/NAME.json`` in the output, by the file's name; readers of ``items/`` don't see it.
        For an output on an object store a copy of the file is put beside the item.
    cell, crs, by
        As in `density_grid`.

    Returns
    -------
    DensityFile
        What was written. Bands are float64, so that counts are exact and one file holds all:
        ``count``, ``score_mean``, ``area_m2_sum``, ``area_m2_mean``, then ``count COLUMN=VALUE``
        by value. Nodata is NaN, which only the means have: a count of nothing is 0. Overviews hold
        averages, so their counts are detections for each cell of full size.

    Raises
    ------
    OutputError
        If `output` is no output of geosweep, is in pixels or has no detections, the grid has more than
        17 billion cells, or a file can't be written.
    JobError
        If an argument makes no sense.
    """
    spec = GridSpec(cell, crs, by)
    if path is not None and Path(path).suffix.lower() not in (".tif", ".tiff"):
        raise JobError(
            f"The density file is {path}, but it is a GeoTIFF; let its name end in .tif."
        )
    storage, collection = open_output(output)
    name = "density" if path is None else Path(path).stem
    item_key, key = f"{FOLDER}/{name}.json", f"{FOLDER}/{name}.tif"
    scenes = CommittedScenes(storage)
    with tempfile.TemporaryDirectory(prefix="geosweep-") as work:
        folder = Path(work)
        grid = gather(storage, scenes, crs_of_rows(collection), spec, folder)
        made = _write_cog(grid, folder, public_href(str(output)))
        size = made.stat().st_size
        item_at = storage.local_path(item_key)
        href = f"./{name}.tif"
        if path is None or item_at is None:
            storage.put_file(key, made)
        if path is not None:
            _place(made, Path(path))
            if item_at is not None:
                href = Path(os.path.relpath(Path(path).absolute(), item_at.parent)).as_posix()
    item = item_of(grid, scenes.interval, collection, name=name, href=href, size=size)
    storage.put(item_key, json.dumps(item, indent=1, allow_nan=False, ensure_ascii=False).encode())
    return DensityFile(
        path=storage.uri(key) if path is None else str(path),
        item=item_key,
        shape=grid.shape,
        bands=tuple(layer.band for layer in grid.layers),
        detections=grid.inside,
        outside=grid.outside,
    )


def _write_cog(grid: DetectionGrid, folder: Path, output: str) -> Path:
    """Write the grid to a file in `folder`.

    The COG driver wants a whole raster to copy. That is put together by a VRT from two sparse files, in
    which tiles without detections take no room and no time: of sums, where a hole reads as 0, and
    of means, where it reads as NaN.
    """
    rows, columns = grid.shape
    if not rows:
        what = f"none of its {grid.outside:,} detections has a place in {grid.spec.crs}"
        raise OutputError(
            f"There is no grid of {output} to write: {what if grid.outside else 'it has no detections'}."
        )
    if rows * columns > _MOST_CELLS:
        raise OutputError(
            f"The grid of {output} would have {rows:,} × {columns:,} cells; take a cell larger than "
            f"{grid.spec.cell:g} {grid.spec.unit}."
        )
    path = folder / "density.tif"
    try:
        with rasterio.Env(GDAL_CACHEMAX=64 << 20):
            _write_sparse(grid, folder)
            vrt = folder / "density.vrt"
            vrt.write_text(_vrt(grid), encoding="utf-8")
            rasterio.shutil.copy(
                str(vrt),
                str(path),
                driver="COG",
                compress="DEFLATE",
                predictor="YES",
                blocksize=_block_size(len(grid.layers)),
                overview_resampling="AVERAGE",
                bigtiff="IF_SAFER",
                num_threads="ALL_CPUS",
            )
    except (RasterioError, OSError) as error:
        raise OutputError(
            f"The grid of {rows:,} × {columns:,} cells can't be written to {folder}: {error}"
        ) from error
    return path


def _write_sparse(grid: DetectionGrid, folder: Path) -> None:
    rows, columns = grid.shape
    margin_row, margin_column = _margins(grid)
    options = {
        "driver": "GTiff",
        "height": margin_row + rows,
        "width": margin_column + columns,
        "dtype": "float64",
        "transform": grid.transform,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "interleave": "band",
        "sparse_ok": True,
        "compress": "ZSTD",
        "zstd_level": 1,
        "bigtiff": "YES",
    }
    layers = grid.layers
    sums = [layer for layer in layers if not layer.mean]
    means = [layer for layer in layers if layer.mean]
    top, left = grid.origin[0] - margin_row, grid.origin[1] - margin_column
    with (
        rasterio.open(folder / _file(mean=False), "w", count=len(sums), **options) as of_sums,
        rasterio.open(
            folder / _file(mean=True), "w", count=len(means), nodata=float("nan"), **options
        ) as of_means,
    ):
        for tile in grid.tiles():
            row, column = tile.row - top, tile.column - left
            height = min(TILE, margin_row + rows - row)
            width = min(TILE, margin_column + columns - column)
            window = Window(column, row, width, height)  # type: ignore[call-arg]
            for file, chosen in ((of_sums, sums), (of_means, means)):
                for band, layer in enumerate(chosen, 1):
                    file.write(layer_values(layer, tile)[:height, :width], band, window=window)


def _margins(grid: DetectionGrid) -> tuple[int, int]:
    """Rows and columns between the borders of the first tile and of the grid."""
    row, column = grid.origin
    return row % TILE, column % TILE


def _vrt(grid: DetectionGrid) -> str:
    rows, columns = grid.shape
    margin_row, margin_column = _margins(grid)
    root = ET.Element("VRTDataset", rasterXSize=str(columns), rasterYSize=str(rows))
    ET.SubElement(root, "SRS").text = grid.spec.code or grid.spec.wkt
    ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, grid.transform.to_gdal()))
    position = {False: 0, True: 0}
    for number, layer in enumerate(grid.layers, 1):
        position[layer.mean] += 1
        band = ET.SubElement(root, "VRTRasterBand", dataType="Float64", band=str(number))
        ET.SubElement(band, "Description").text = layer.band
        ET.SubElement(band, "NoDataValue").text = "nan"
        ET.SubElement(band, "UnitType").text = layer.unit or ""
        source = ET.SubElement(band, "SimpleSource")
        ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = _file(mean=layer.mean)
        ET.SubElement(source, "SourceBand").text = str(position[layer.mean])
        size = {"xSize": str(columns), "ySize": str(rows)}
        start = {"xOff": str(margin_column), "yOff": str(margin_row)}
        ET.SubElement(source, "SrcRect", start | size)
        ET.SubElement(source, "DstRect", {"xOff": "0", "yOff": "0"} | size)
    return ET.tostring(root, encoding="unicode")


def _file(*, mean: bool) -> str:
    return "means.tif" if mean else "sums.tif"


def _block_size(bands: int) -> int:
    """The COG driver keeps all bands of a block together, so many bands mean small blocks."""
    fitting = [side for side in (512, 256) if side * side * 8 * bands <= _BLOCK_BYTES]
    return fitting[0] if fitting else 128


def _place(made: Path, path: Path) -> None:
    """Copy a file to where the user wants it, whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(made, part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"The grid {path} can't be written: {error.strerror}.") from error
