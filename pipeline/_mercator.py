"""Web mercator for what is looked at, turned so that what lies across the antimeridian is in one piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from ._geo import transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

WEB_MERCATOR = "EPSG:3857"
HALF_WORLD = math.pi * 6378137.0
"""Metres from Greenwich to the antimeridian."""


def mercator_outlines(
    footprints: Sequence[BaseGeometry | None],
) -> tuple[list[BaseGeometry | None], bool]:
    """Return footprints in web mercator, and whether the map goes on beyond the antimeridian.

    It does where the footprints are closer together with the antimeridian in the middle.

    Parameters
    ----------
    footprints
        In EPSG:4326; None where unknown, which stays so, as does what has no place in web mercator.
    """
    outlines = [_to_mercator(footprint) for footprint in footprints]
    placed = np.array([outline for outline in outlines if outline is not None], dtype=object)
    across = len(placed) > 0 and _width(turned(placed)) < _width(placed)
    if across:
        outlines = [None if outline is None else turned(outline) for outline in outlines]
    return outlines, across


def _to_mercator(footprint: BaseGeometry | None) -> BaseGeometry | None:
    if footprint is None or footprint.is_empty:
        return None
    # The poles are infinitely far away in this projection.
    clipped = shapely.intersection(footprint, shapely.box(-180, -85.05, 180, 85.05))
    if clipped.is_empty:
        return None
    there = transformer("EPSG:4326", WEB_MERCATOR)
    return shapely.transform(clipped, lambda xy: np.column_stack(there.transform(*xy.T)))


def turned(shapes: Any) -> Any:
    """Move what lies west of Greenwich to the right, beyond the antimeridian.

    Shapes across Greenwich are torn apart: with them, a turned map is no narrower.
    """
    return shapely.transform(shapes, lambda xy: np.column_stack([turned_x(xy[:, 0]), xy[:, 1]]))


def whole_boxes(shapes: NDArray[np.object_], *, across: bool) -> NDArray[np.object_]:
    """Boxes as single polygons; of one in two parts at the antimeridian, if the map ends there, the larger.

    Parameters
    ----------
    shapes
        Boxes in web mercator.
    across
        Whether the map goes on beyond the antimeridian.
    """
    boxes = turned(shapes) if across else shapes.copy()
    for row in np.flatnonzero(shapely.get_num_geometries(boxes) > 1):
        # The millimetre removes the corners on the cut.
        joined = shapely.simplify(shapely.union_all(shapely.get_parts(boxes[row])), 1e-3)
        boxes[row] = max(shapely.get_parts(joined).tolist(), key=lambda part: part.area)
    return boxes


def turned_x(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same for coordinates."""
    return x + np.where(x < 0, 2 * HALF_WORLD, 0.0)


def _width(shapes: NDArray[np.object_]) -> float:
    left, _, right, _ = shapely.total_bounds(shapes)
    return float(right - left)
