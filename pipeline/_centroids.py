"""Centroids of the rows' polygons, as fast as they can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely

from ._outlines import BOX_WKB

if TYPE_CHECKING:
    from numpy.typing import NDArray


def centroids(geometry: pa.Array, *, geographic: bool) -> NDArray[np.float64]:
    """Centroids of geometries.

    Parameters
    ----------
    geometry
        WKB, (N,).
    geographic
        Whether x is in degrees: what spans more than half of the world then lies across the
        antimeridian, and is put together again beyond 180°.

    Returns
    -------
    ndarray
        x and y, float64 (N, 2); NaN where there is no geometry, or an empty one.
    """
    corners = _corners(geometry)
    if corners is None:
        return _of_any(geometry, geographic)
    if geographic:
        x = corners[..., 0]
        torn = np.ptp(x, axis=1) > 180
        x[torn] %= 360
    return _of_quadrilaterals(corners)


def _corners(geometry: pa.Array) -> NDArray[np.float64] | None:
    """Corners (N, 4, 2) if all are polygons of four corners without holes, else None."""
    count, size = len(geometry), BOX_WKB.itemsize
    if geometry.null_count or not pa.types.is_binary(geometry.type):
        return None
    _, offsets, data = geometry.buffers()
    starts = np.frombuffer(offsets, np.int32, count + 1, geometry.offset * 4)
    if not count or data is None or (np.diff(starts) != size).any():
        return None
    shapes = np.frombuffer(data, BOX_WKB, count, int(starts[0]))
    head = np.array((1, 3, 1, 5))
    read = np.column_stack([shapes[name] for name in ("order", "kind", "rings", "points")])
    return None if (read != head).any() else shapes["xy"][:, :4].copy()


def _of_quadrilaterals(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area centroids by the shoelace formula, from one corner so that no digits are lost."""
    first = corners[:, :1]
    a = corners - first
    b = np.roll(a, -1, axis=1)
    cross = a[..., 0] * b[..., 1] - b[..., 0] * a[..., 1]
    area = cross.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = ((a + b) * cross[..., None]).sum(axis=1) / (3 * area[:, None])
    # Lines and points have no area.
    middle = np.where(area[:, None] == 0, a.mean(axis=1), middle)
    return first[:, 0] + middle


def _of_any(geometry: pa.Array, geographic: bool) -> NDArray[np.float64]:
    shapes = shapely.from_wkb(geometry.to_numpy(zero_copy_only=False))
    bounds = shapely.bounds(shapes)
    torn = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180) if geographic else []
    if len(torn):
        shapes[torn] = shapely.transform(
            shapes[torn], lambda xy: np.where([[True, False]], xy % 360, xy)
        )
    points = shapely.centroid(shapes)
    return np.column_stack([shapely.get_x(points), shapely.get_y(points)])
