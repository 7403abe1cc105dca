"""Order in the plane: places along a Hilbert curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SLICE = 200_000


def hilbert_distances(
    points: NDArray[np.float64], bounds: tuple[float, float, float, float]
) -> NDArray[np.uint32]:
    """How far along a curve through `bounds` (xmin, ymin, xmax, ymax) each of the points (N, 2) lies."""
    import geopandas as gpd
    import numpy as np
    import shapely

    distance = np.empty(len(points), np.uint32)
    for start in range(0, len(points), _SLICE):  # as objects they take ten times the room
        part = gpd.GeoSeries(shapely.points(points[start : start + _SLICE]))
        distance[start : start + _SLICE] = part.hilbert_distance(bounds)
    return distance
