"""From points and polygons to boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINT, _POLYGON, _MULTIPOLYGON = 0, 3, 6
POINTS_NEED = "is a point, and points need point_buffer, half the side of their boxes"


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of geometries: float64 (N, 4), whether each is around a point, and what is wrong."""

    corners: NDArray[np.float64]
    at_point: NDArray[np.bool_]
    why: list[str | None]


def bounds_of(geometry: NDArray[Any], radius: tuple[float, float] | None) -> Boxes:
    """Bounds of polygons, and boxes around points.

    Parameters
    ----------
    geometry
        (N,) shapely geometries in pixels, or None.
    radius
        Half the width and height in pixels of the boxes around points.
    """
    import shapely

    kinds = shapely.get_type_id(geometry)
    at_point = kinds == _POINT
    corners = shapely.bounds(geometry)
    if radius is not None:
        corners[at_point] += np.array([-1, -1, 1, 1]) * np.tile(radius, 2)
    why: list[str | None] = [None] * len(geometry)
    for i in np.flatnonzero(~np.isin(kinds, (_POINT, _POLYGON, _MULTIPOLYGON))):
        kind = "nothing" if geometry[i] is None else f"a {geometry[i].geom_type}"
        why[i] = f"its geometry is {kind}; only polygons and points can become boxes"
    for i in np.flatnonzero(shapely.is_empty(geometry)):
        why[i] = why[i] or "its geometry is empty"
    if radius is None:
        for i in np.flatnonzero(at_point):
            why[i] = why[i] or f"its geometry {POINTS_NEED}"
    return Boxes(corners, at_point, why)
