"""The part of a scene that counts: inside the area of interest and not another scene's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine

from ..catalog.lonlat import around
from ._antimeridian import LONLAT, frame_longitude, unbroken, within_180
from ._covering import covered_surely
from ._geo import to_map, transformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from .windows import WindowGrid

_HAIR, _INWARDS = 0.01, 0.51
_MARGIN = 5.1 * _INWARDS
"""Pixels from an edge; no mitre reaches further."""


@dataclass(frozen=True, slots=True)
class Region:
    """Limits of a scene, in EPSG:4326.

    Parameters
    ----------
    aoi
        Only detections whose centre is in here count; None for no limit.
    foreign
        Ground that belongs to other scenes; None for none.
    """

    aoi: BaseGeometry | None = None
    foreign: BaseGeometry | None = None

    @property
    def version(self) -> str:
        """Hash of the limits. A scene whose neighbours change gets another version."""
        parts = [b"" if part is None else shapely.to_wkb(part) for part in (self.aoi, self.foreign)]
        return hashlib.sha256(b"\x1f".join(parts)).hexdigest()[:16]

    @property
    def unlimited(self) -> bool:
        """Whether everything counts."""
        return self.aoi is None and self.foreign is None

    def plan(
        self,
        grid: WindowGrid,
        transform: Affine | None,
        crs: str | None,
        scale: tuple[float, float],
    ) -> WindowPlan:
        """Choose the windows worth reading.

        Parameters
        ----------
        grid
            Windows over the level that is read.
        transform, crs
            Georeferencing of the whole raster; without it there are no limits.
        scale
            Raster pixels for each level pixel, x and y.
        """
        outside = np.zeros(grid.shape, bool)
        owned = np.zeros(grid.shape, bool)
        if transform is not None and crs is not None and not self.unlimited:
            level = transform @ Affine.scale(*scale)
            lon = frame_longitude(level, (grid.width, grid.height), crs)
            if self.aoi is not None:
                outside = ~grid.touched(_to_pixels(self.aoi, ~level, crs, lon))
            if self.foreign is not None:
                owned = _owned(grid, self.foreign, ~level, crs, lon) & ~outside
        return WindowPlan(~(outside | owned), int(outside.sum()), int(owned.sum()))

    def contains(
        self, x: NDArray[np.float64], y: NDArray[np.float64], crs: str
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether map points lie in the area of interest, and whether they are the scene's own."""
        lon, lat = transformer(crs, LONLAT).transform(x, y)
        points = np.asarray(shapely.points(within_180(np.asarray(lon)), lat))
        everything = np.ones(len(x), bool)
        inside = everything if self.aoi is None else shapely.intersects(self.aoi, points)
        own = everything if self.foreign is None else ~shapely.intersects(self.foreign, points)
        return inside, own


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Which windows to read, and how many are not planned and why.

    Parameters
    ----------
    wanted
        (rows, columns) mask.
    outside_aoi, owned_elsewhere
        Numbers of windows left out.
    """

    wanted: NDArray[np.bool_]
    outside_aoi: int
    owned_elsewhere: int

    @property
    def count(self) -> int:
        """Number of windows to read."""
        return int(self.wanted.sum())


def _owned(
    grid: WindowGrid, foreign: BaseGeometry, to_pixels: Affine, crs: str, lon: float | None
) -> NDArray[np.bool_]:
    """(rows, columns) mask of the windows that others own whole; `lon` as for `_to_pixels`."""
    owned, unsure = covered_surely(grid, *_conversion(foreign, to_pixels, crs, lon), _MARGIN)
    if unsure.any():
        # A hair out: parts that meet on the map may leave cracks here. Then half a pixel in: curved
        # lines between map and pixels are only followed so closely.
        pixels = _to_pixels(foreign, to_pixels, crs, lon)
        pixels = pixels.buffer(_HAIR, join_style="mitre").buffer(-_INWARDS, join_style="mitre")
        owned |= grid.covered(pixels, unsure)
    return owned


def _to_pixels(
    geometry: BaseGeometry, to_pixels: Affine, crs: str, lon: float | None
) -> BaseGeometry:
    """A lon/lat geometry in pixel coordinates, its edges densified so that they bend.

    `lon` is the raster's `frame_longitude`.
    """
    geometry, convert = _conversion(geometry, to_pixels, crs, lon)
    low_x, low_y, high_x, high_y = geometry.bounds
    step = max(high_x - low_x, high_y - low_y) / 64
    dense = shapely.segmentize(geometry, step) if step > 0 else geometry
    return shapely.make_valid(shapely.transform(dense, convert))


def _conversion(
    geometry: BaseGeometry, to_pixels: Affine, crs: str, lon: float | None
) -> tuple[BaseGeometry, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """A lon/lat geometry in one piece on the raster, and what takes its points to pixels."""
    project = transformer(LONLAT, crs)
    if lon is not None:
        geometry, project = around(geometry, lon), unbroken(LONLAT, crs)

    def convert(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = project.transform(points[:, 0], points[:, 1])
        return np.stack(to_map(to_pixels, np.asarray(x), np.asarray(y)), axis=1)

    return geometry, convert
