"""One raster cut into tiles on disk."""

from __future__ import annotations

import csv
import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...catalog.errors import OutputError, RasterError
from ._stripes import read_windows
from ._windows import cut_boxes, window_offsets
from .frame import annotation_frame
from .headers import band_number, is_remote, open_image, reason, shown
from .write import write_annotations

if TYPE_CHECKING:
    import geopandas as gpd
    import rasterio
    from numpy.typing import NDArray

log = logging.getLogger("geosweep")


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How rasters are cut; see `split_raster`."""

    folder: Path
    size: int
    overlap: float
    empty: bool
    min_visible: float
    bands: Sequence[int | str] | None


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes (N, 4) of an image in its pixels, with their labels."""

    corners: NDArray[np.float64]
    labels: NDArray[np.object_]


NO_BOXES = Boxes(np.zeros((0, 4)), np.zeros(0, object))


class _Content(NamedTuple):
    """What a window holds: boxes in its pixels, and which of the image's boxes these are."""

    corners: NDArray[np.float64]
    rows: NDArray[np.int64]


class _Tile(NamedTuple):
    name: str
    xoff: int
    yoff: int
    content: _Content


def cut_tiles(path: str, boxes: Boxes, plan: TilePlan) -> gpd.GeoDataFrame:
    """Write the tiles of one raster, and after them the CSV of their annotations.

    Returns
    -------
    geopandas.GeoDataFrame
        See `split_raster`; without rows if there was nothing to write.
    """
    source = shown(path)
    name = _free_name(plan.folder, source)
    tiles: dict[int, _Tile] = {}
    with open_image(path) as dataset:
        bands = _choose_bands(dataset, plan.bands)
        windows = _windows(dataset.width, dataset.height, plan)
        contents = _contents(windows, boxes, plan.min_visible)
        wanted = [i for i in range(len(windows)) if plan.empty or i in contents]
        for number, pixels, some in read_windows(dataset, bands, windows[wanted]):
            index = wanted[number]
            if not some and index not in contents:
                continue
            x, y = windows[index, :2].tolist()
            file = _write_tile(plan.folder / f"{name}_{x}_{y}", pixels, dataset, bands, (x, y))
            tiles[index] = _Tile(file.name, x, y, contents.get(index, _NOTHING))
    _warn_of_lost(source, boxes, list(tiles.values()), plan)
    frame = _frame([tiles[i] for i in sorted(tiles)], boxes, source, plan.folder)
    if len(frame):
        write_annotations(frame, plan.folder / f"{name}.csv")
    return frame


_NOTHING = _Content(np.zeros((0, 4)), np.zeros(0, np.int64))


def _free_name(folder: Path, source: str) -> str:
    """The raster's name without suffix, with a hash if another raster's tiles have that name."""
    stem = PurePosixPath(source).stem if is_remote(source) else Path(source).stem
    try:
        with (folder / f"{stem}.csv").open(encoding="utf-8", newline="") as file:
            first = next(csv.DictReader(file), {})
    except FileNotFoundError:
        return stem
    except (OSError, UnicodeDecodeError, csv.Error):
        first = {}
    if first.get("source") == source:
        return stem
    return f"{stem}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def _choose_bands(dataset: rasterio.DatasetReader, wanted: Sequence[int | str] | None) -> list[int]:
    from rasterio.enums import ColorInterp

    if wanted is None:
        kinds = zip(dataset.indexes, dataset.colorinterp, strict=True)
        bands = [band for band, kind in kinds if kind != ColorInterp.alpha]
    else:
        bands = [band_number(dataset, band) for band in wanted]
    if not bands:
        raise RasterError(f"{shown(dataset.name)} has no bands to write; name some with bands=.")
    if dataset.colorinterp[bands[0] - 1] == ColorInterp.palette:
        raise RasterError(
            f"{shown(dataset.name)} holds palette indices, not colours; expand it first with "
            "gdal_translate -expand rgb."
        )
    return bands


def _windows(width: int, height: int, plan: TilePlan) -> NDArray[np.int64]:
    """(N, 4) xoff, yoff, width, height, row by row."""
    xs = window_offsets(width, plan.size, plan.overlap)
    ys = window_offsets(height, plan.size, plan.overlap)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    size = np.array([min(plan.size, width), min(plan.size, height)])
    return np.concatenate([grid, np.broadcast_to(size, grid.shape)], axis=1)


def _contents(windows: NDArray[np.int64], boxes: Boxes, min_visible: float) -> dict[int, _Content]:
    """What the windows with boxes hold, by their number."""
    import shapely

    if not len(boxes.corners):
        return {}
    x0, y0, x1, y1 = boxes.corners.T
    tree = shapely.STRtree(np.asarray(shapely.box(x0, y0, x1, y1)))
    left, top, width, height = windows.T
    pairs = tree.query(np.asarray(shapely.box(left, top, left + width, top + height)))
    pairs = pairs[:, np.lexsort(pairs[::-1])]
    found: dict[int, _Content] = {}
    for group in np.split(pairs, np.flatnonzero(np.diff(pairs[0])) + 1, axis=1):
        if not group.size:
            continue
        index, rows = int(group[0, 0]), group[1]
        window = windows[index]
        corners, kept = cut_boxes(boxes.corners[rows], window, min_visible=min_visible, min_side=0)
        if len(corners):
            found[index] = _Content(corners, rows[kept])
    return found


def _write_tile(
    stem: Path,
    pixels: NDArray[Any],
    dataset: rasterio.DatasetReader,
    bands: list[int],
    offset: tuple[int, int],
) -> Path:
    """Write a PNG for 8-bit RGB, else a GeoTIFF."""
    import rasterio
    from affine import Affine
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    count, height, width = pixels.shape
    options: dict[str, Any] = {"driver": "PNG"}
    if count != 3 or pixels.dtype != np.uint8:
        predictor = {"i": 2, "u": 2, "f": 3}.get(pixels.dtype.kind, 1)
        options = {"driver": "GTiff", "compress": "deflate", "predictor": predictor}
        options["nodata"] = dataset.nodata
    if dataset.crs is not None or not dataset.transform.is_identity:
        options["transform"] = dataset.transform @ Affine.translation(*offset)
        options["crs"] = dataset.crs
    path = stem.with_name(stem.name + (".png" if options["driver"] == "PNG" else ".tif"))
    shape = {"width": width, "height": height, "count": count, "dtype": pixels.dtype}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            tile = rasterio.open(path, "w", **shape, **options)
        with tile:
            if options["driver"] == "GTiff":
                tile.colorinterp = [dataset.colorinterp[band - 1] for band in bands]
                tile.descriptions = [dataset.descriptions[band - 1] for band in bands]
            tile.write(pixels)
    except (RasterioError, OSError) as error:
        raise OutputError(f"{path} can't be written: {reason(error)}.") from error
    return path


def _warn_of_lost(source: str, boxes: Boxes, tiles: list[_Tile], plan: TilePlan) -> None:
    kept = {row for tile in tiles for row in tile.content.rows.tolist()}
    lost = len(boxes.labels) - len(kept)
    if lost:
        log.warning(
            "%s: %d of %d boxes are in no tile, since none holds a share of %g of them.",
            source,
            lost,
            len(boxes.labels),
            plan.min_visible,
        )


def _frame(tiles: list[_Tile], boxes: Boxes, source: str, folder: Path) -> gpd.GeoDataFrame:
    """Annotations of the tiles; one without boxes is a negative."""
    repeats = [max(len(tile.content.rows), 1) for tile in tiles]
    corners = [
        tile.content.corners if len(tile.content.rows) else np.zeros((1, 4)) for tile in tiles
    ]
    labels = [
        boxes.labels[tile.content.rows] if len(tile.content.rows) else [None] for tile in tiles
    ]
    frame = annotation_frame(
        np.repeat(np.array([tile.name for tile in tiles], object), repeats).tolist(),
        np.concatenate([np.zeros((0, 4)), *corners]),
        [label for one in labels for label in one],
        root_dir=folder,
    )
    frame["source"] = source
    frame["xoff"] = np.repeat(np.array([tile.xoff for tile in tiles], np.int64), repeats)
    frame["yoff"] = np.repeat(np.array([tile.yoff for tile in tiles], np.int64), repeats)
    return frame
