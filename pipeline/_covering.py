"""Which windows a shape surely covers, and which it surely doesn't, told from boxes around its edges.

Buffers and predicates of GEOS take a scene half a millisecond. Most windows lie clear of all edges of the
shape, or have a corner that lies clear of them and outside, and need neither.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import shapely

from .windows import WindowGrid, offsets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_ALONG = np.array([0.25, 0.5, 0.75])[:, None, None]
_BENT = 100.0
"""Pixels that an edge may bend; beyond that, points between tell little of it."""


def covered_surely(
    grid: WindowGrid,
    shape: BaseGeometry,
    project: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    margin: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell windows that a shape covers whatever happens near its edges.

    Parameters
    ----------
    grid
        The windows.
    shape
        Valid polygons.
    project
        Takes points (N, 2) of the shape to pixels; straight edges become smooth curves.
    margin
        How far from an edge, in pixels, anything may happen.

    Returns
    -------
    covered, unsure
        (rows, columns) masks: windows that are covered; windows that may be or not. All others have a
        corner that lies outside.
    """
    points, ring = shapely.get_coordinates(
        shapely.get_rings(shapely.get_parts(shape)), return_index=True
    )
    same = ring[1:] == ring[:-1]
    ahead = points[1:][same] - points[:-1][same]
    between = points[:-1][same] + _ALONG * ahead
    pixels = project(np.concatenate([points, between.reshape(-1, 2)]))
    corners, between = pixels[: len(points)], pixels[len(points) :].reshape(between.shape)
    start, end = corners[:-1][same], corners[1:][same]
    bend = np.abs(between - (start + _ALONG * (end - start))).max(axis=(0, 2))
    if not (bend < _BENT).all():  # or not finite
        return np.zeros(grid.shape, bool), np.ones(grid.shape, bool)
    # A curve leaves its chord hardly further than at a quarter, a half or three quarters.
    reach = (margin + 1.5 * bend)[:, None]
    low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach

    columns, of_column = _corners(grid.width, grid.size, grid.overlap)
    rows, of_row = _corners(grid.height, grid.size, grid.overlap)
    x, y = columns[of_column], rows[of_row]
    touched = _met(x, y, low, high) > 0
    near = _met((columns, columns), (rows, rows), low, high) > 0
    # What has an odd number of edges to its left lies inside. Where in its box an edge crosses a row is
    # all the same, as corners in there are near.
    ends = np.sort([start[:, 1], end[:, 1]], axis=0)
    top, bottom = np.searchsorted(rows, ends[0]), np.searchsorted(rows, ends[1])
    left, right = np.searchsorted(columns, low[:, 0]), np.full(len(low), len(columns))
    edges_left = _counted(top, bottom, left, right, (len(rows), len(columns)))
    outside = (edges_left % 2 == 0) & ~near
    outside = outside[of_row].any(axis=0)[:, of_column].any(axis=1)
    return ~touched & ~outside, touched & ~outside


@lru_cache(maxsize=16)
def _corners(length: int, size: int, overlap: int) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Where windows along an axis begin and end, in order, and which of it is whose, (2, windows)."""
    first = offsets(length, size, overlap)
    places, whose = np.unique([first, np.minimum(first + size, length)], return_inverse=True)
    return places, whose.reshape(2, -1)


def _met(
    columns: Sequence[NDArray[np.int64]] | NDArray[np.int64],
    rows: Sequence[NDArray[np.int64]] | NDArray[np.int64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.int64]:
    """How many boxes meet each cell of a table, whose columns and rows begin and end in order."""
    left, top = np.searchsorted(columns[1], low[:, 0]), np.searchsorted(rows[1], low[:, 1])
    right = np.searchsorted(columns[0], high[:, 0], "right")
    bottom = np.searchsorted(rows[0], high[:, 1], "right")
    shape = len(rows[0]), len(columns[0])
    return _counted(top, np.maximum(bottom, top), left, np.maximum(right, left), shape)


def _counted(
    top: NDArray[np.intp],
    bottom: NDArray[np.intp],
    left: NDArray[np.intp],
    right: NDArray[np.intp],
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """How many blocks hold each cell of a table; of a block `bottom` and `right` are the first beyond."""
    high, wide = shape[0] + 1, shape[1] + 1
    more = np.concatenate([top * wide + left, bottom * wide + right])
    less = np.concatenate([top * wide + right, bottom * wide + left])
    change = np.bincount(more, minlength=high * wide) - np.bincount(less, minlength=high * wide)
    return change.reshape(high, wide).cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
