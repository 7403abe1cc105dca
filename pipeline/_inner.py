"""Footprints without their border, many at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
import shapely

from ..catalog.lonlat import crosses
from ._antimeridian import METRES_PER_DEGREE, shrunk
from ._geo import pixel_areas_m2
from ._places import GRID, Place

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry


def inner_footprints(places: Sequence[Place], overlap_pixels: float) -> list[BaseGeometry]:
    """Return footprints in EPSG:4326 without so many pixels along their borders.

    Those without a grid keep their border.
    """
    found = [place.footprint for place in places]
    of_crs: dict[str, list[int]] = defaultdict(list)
    for row, place in enumerate(places):
        if place.grid is not None and place.crs is not None:
            of_crs[place.crs].append(row)
    for crs, rows in of_crs.items():
        grids = np.array([GRID.unpack(places[row].grid or b"") for row in rows], float)
        # Width before height.
        areas = pixel_areas_m2(grids[:, :6], grids[:, :5:-1], crs)
        borders = overlap_pixels * np.sqrt(areas) / METRES_PER_DEGREE
        whole = [not crosses(found[row]) for row in rows]
        inner = iter(_shrunk([found[row] for row in compress(rows, whole)], borders[whole]))
        for row, border, plain in zip(rows, borders.tolist(), whole, strict=True):
            found[row] = next(inner) if plain else shrunk(found[row], border)
    return found


def _shrunk(footprints: list[BaseGeometry], borders: NDArray[np.float64]) -> NDArray[np.object_]:
    """Footprints that stay clear of the antimeridian without borders so many degrees of latitude wide."""
    # Degrees of longitude are shorter than those of latitude: shrink in a local frame.
    middles = shapely.get_y(shapely.centroid(footprints)).tolist()
    stretch = np.array([max(math.cos(math.radians(y)), 1e-3) for y in middles])
    local = _stretched(np.array(footprints, object), stretch)
    inner = shapely.buffer(local, -borders, quad_segs=16, join_style="mitre")
    return _stretched(inner, 1 / stretch)


def _stretched(shapes: NDArray[np.object_], factors: NDArray[np.float64]) -> NDArray[np.object_]:
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    points[:, 0] *= factors[owner]
    points += 0.0  # one sign for zero, so that equal shapes have equal bytes
    return shapely.set_coordinates(shapes.copy(), points)
