"""Crops of the same ground from another raster: near-infrared, a height model.

A detection's rectangle goes through map coordinates into the other raster's grid, and what covers it
there is cut at that raster's own resolution, without resampling. Grids may differ in resolution, CRS
and rotation; where they are turned against each other, the crop is the upright hull.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog.errors import GeosweepError, RasterError
from ._antimeridian import middle_longitude, near_longitude
from ._geo import to_map, transformer
from .crop import EMPTY, PARTLY, WHOLE, Cut

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

    from .pixels import PixelSource, Strip
    from .scene_reader import SceneHeader

MAX_READ_PIXELS = 16 * 2**20
"""Largest rectangle that is read at once for the crops of a window; larger ones go crop by crop."""
TOUCH = 0.01
"""Share of a pixel that must be covered for it to belong to the crop: less is rounding."""


class GroundRaster:
    """A raster of the ground that a scene shows; it is opened at the first crop.

    Parameters
    ----------
    open_source
        Opens it, with the bands that the crop model wants.
    who
        Crop model and asset, for messages.
    bands
        Bands that the crop model takes.
    """

    def __init__(self, open_source: Callable[[], PixelSource], who: str, bands: int) -> None:
        self._open = open_source
        self._who = who
        self._bands = bands
        self._source: PixelSource | None = None

    def cut(
        self, bounds: NDArray[np.int64], windows: NDArray[np.int64], header: SceneHeader
    ) -> Cut:
        """Cut what lies under rectangles of the swept raster.

        Parameters
        ----------
        bounds
            int64 (N, 4), rectangles of the level that is swept (see `detection_bounds`).
        windows
            int64 (N,), the window of each; those of one window are near each other and are read in one
            go.
        header
            Of the scene that is swept.

        Returns
        -------
        Cut
            Pixels (h, w, bands): uint8 of 8-bit or rescaled rasters, float32 of floats. Pixels without
            data, beyond the raster's edge too, are 0.

        Raises
        ------
        RasterError
            If the raster can't be opened or read, or lies nowhere on the map.
        """
        try:
            source = self._opened()
            if source.transform is None or source.crs is None:
                raise RasterError("it has no georeferencing, so its ground is not known")
            lon = middle_longitude(source.transform, source.full_size, source.crs)
            places = ground_bounds(bounds, header, source.transform, source.crs, lon)
            return self._cut(source, places, windows)
        except GeosweepError as error:
            raise RasterError(f"{self._who}: {error}") from error

    def _opened(self) -> PixelSource:
        if self._source is None:
            source = self._open()
            if source.count != self._bands:
                source.close()
                raise RasterError(
                    f"the model takes {self._bands} bands and gets {source.count}; name as many in "
                    "crop_models.bands."
                )
            self._source = source
        return self._source

    def _cut(
        self, source: PixelSource, places: NDArray[np.int64], windows: NDArray[np.int64]
    ) -> Cut:
        limits = np.array([source.width, source.height] * 2)
        inside = np.clip(places, 0, limits)
        there = (inside[:, :2] < inside[:, 2:]).all(axis=1)
        kind = np.float32 if source.dtype.kind == "f" else np.uint8
        nothing = np.zeros((1, 1, source.count), kind)
        crops: list[NDArray[Any]] = [nothing] * len(places)
        outside = np.full(len(places), EMPTY, np.int8)
        outside[there] = np.where((inside == places).all(axis=1), WHOLE, PARTLY)[there]
        failed: set[int] = set()
        for window in np.unique(windows[there]):
            rows = np.flatnonzero(there & (windows == window))
            for group in _groups(inside, rows):
                left, top = inside[group, :2].min(axis=0).tolist()
                right, bottom = inside[group, 2:].max(axis=0).tolist()
                strip = source.read(left, top, right, bottom)
                for row in group:
                    if strip.is_damaged(inside[row].tolist()):
                        failed.add(int(window))
                    pixels, any_data = _cut_out(strip, inside[row], places[row], kind)
                    if any_data:
                        crops[row] = pixels
                    else:
                        outside[row] = EMPTY
        return Cut(crops, np.array(sorted(failed), np.int64), outside)

    def close(self) -> None:
        """Release the raster, if it was opened."""
        if self._source is not None:
            self._source.close()
            self._source = None


def ground_bounds(
    bounds: NDArray[np.int64],
    header: SceneHeader,
    transform: Affine,
    crs: str,
    lon: float | None = None,
) -> NDArray[np.int64]:
    """Find the pixels of another raster that cover rectangles of the swept level.

    Parameters
    ----------
    bounds
        int64 (N, 4) on the level.
    header
        Of the swept scene.
    transform, crs
        Of the other raster.
    lon
        Longitude of its middle, if it is in degrees.

    Returns
    -------
    NDArray
        int64 (N, 4), at least one pixel each; they may lie beyond the raster. Ground that its CRS can't
        express lies at -1.
    """
    if header.transform is None or header.crs is None:
        raise RasterError("the swept raster has no georeferencing, so its ground is not known")
    edges = bounds.astype(np.float64) * np.array([*header.scale, *header.scale])
    x0, y0, x1, y1 = edges.T
    xm, ym = (x0 + x1) / 2, (y0 + y1) / 2
    # The middles of the edges too: straight lines bend between CRSs.
    xs = np.stack([x0, xm, x1, x1, x1, xm, x0, x0], axis=1)
    ys = np.stack([y0, y0, y0, ym, y1, y1, y1, ym], axis=1)
    x, y = to_map(header.transform, xs, ys)
    if crs != header.crs:
        x, y = transformer(header.crs, crs).transform(x, y)
    if lon is not None:
        x = near_longitude(np.asarray(x), lon)
    columns, rows = to_map(~transform, np.asarray(x), np.asarray(y))
    known = np.isfinite(columns + rows).all(axis=1, keepdims=True)
    low = np.stack([columns.min(axis=1), rows.min(axis=1)], axis=1)
    high = np.stack([columns.max(axis=1), rows.max(axis=1)], axis=1)
    low, high = np.where(known, low, -1.0), np.where(known, high, -1.0)
    start = np.floor(low + TOUCH).astype(np.int64)
    stop = np.maximum(np.ceil(high - TOUCH).astype(np.int64), start + 1)
    return np.concatenate([start, stop], axis=1)


def _groups(inside: NDArray[np.int64], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Crops to read together: all of a window, unless that is too much at a time."""
    wide, high = (inside[rows, 2:].max(axis=0) - inside[rows, :2].min(axis=0)).tolist()
    return [rows] if wide * high <= MAX_READ_PIXELS else [rows[i : i + 1] for i in range(len(rows))]


def _cut_out(
    strip: Strip, inside: NDArray[np.int64], place: NDArray[np.int64], kind: type
) -> tuple[NDArray[Any], bool]:
    """Pixels (h, w, bands) of `place`, 0 where there is no data, and whether there is any."""
    left, top = strip.bounds[:2]
    x0, y0, x1, y1 = inside.tolist()
    rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    part = strip.data[:, rows, columns].transpose(1, 2, 0).astype(kind)
    valid = None if strip.valid is None else strip.valid[rows, columns]
    if kind is np.float32:
        # One NaN among them would make the crop's class NaN.
        part[~np.isfinite(part)] = 0
        if valid is not None:
            part[~valid] = 0
    wide, high = (place[2:] - place[:2]).tolist()
    if part.shape[:2] == (high, wide):
        pixels = np.ascontiguousarray(part)
    else:
        pixels = np.zeros((high, wide, part.shape[2]), kind)
        y, x = y0 - int(place[1]), x0 - int(place[0])
        pixels[y : y + y1 - y0, x : x + x1 - x0] = part
    return pixels, valid is None or bool(valid.any())
