"""Order in the plane: places along a Hilbert curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LEVELS = 16
_SLICE = 32_768


def hilbert_distances(
    points: NDArray[np.float64], bounds: tuple[float, float, float, float]
) -> NDArray[np.uint32]:
    """How far along a curve through `bounds` (xmin, ymin, xmax, ymax) each of the points (N, 2) lies.

    The same curve as geopandas' `hilbert_distance`, of 2¹⁶ × 2¹⁶ cells, without geometries.
    """
    import numpy as np

    low, high = np.array(bounds, float).reshape(2, 2)
    width = high - low
    scale = np.divide((1 << _LEVELS) - 1, width, out=np.zeros(2), where=width > 0)
    distance = np.empty(len(points), np.uint32)
    for start in range(0, len(points), _SLICE):  # what one step works on stays in the cache
        cells = (points[start : start + _SLICE] - low) * scale
        x, y = np.clip(cells, 0, (1 << _LEVELS) - 1).astype(np.uint32).T
        distance[start : start + _SLICE] = _along(x.copy(), y.copy())
    return distance


def _along(x: NDArray[np.uint32], y: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """From the largest quadrants to the smallest; each is turned until the curve in it is the first's."""
    import numpy as np

    one, three = np.uint32(1), np.uint32(3)
    distance = np.zeros_like(x)
    for level in np.arange(_LEVELS, dtype=np.uint32)[::-1]:
        right, upper = (x >> level) & one, (y >> level) & one
        distance = (distance << np.uint32(2)) | ((three * right) ^ upper)
        lower = upper - one  # all bits where the quadrant is a lower one, none otherwise
        flip = (~right + one) & lower
        x, y = x ^ flip, y ^ flip
        swap = (x ^ y) & lower
        x, y = x ^ swap, y ^ swap
    return distance
