"""Scenes and boxes across ±180°, and around poles.

Longitudes jump there and nowhere else, so all of this is left out for scenes that lie elsewhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import shapely
from pyproj import CRS, Transformer
from shapely.affinity import affine_transform

from ..catalog.lonlat import around, ring_polygon, within_world
from ._geo import to_map, transformer

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

LONLAT = "EPSG:4326"
METRES_PER_DEGREE = 111_320.0
TORN_METRES = 1e7
"""A box this wide, a quarter of the way round the globe, is one that a projection tears apart."""


@lru_cache(maxsize=64)
def unbroken(source: str, target: str) -> Transformer:
    """A coordinate transformer, in x, y order, that does not bring longitudes back within ±180."""
    return Transformer.from_crs(source, target, always_xy=True, force_over=True)


def frame_longitude(transform: Affine, size: tuple[int, int], crs: str) -> float | None:
    """Return the longitude around which shapes must be put together to lie on a raster in one piece.

    Parameters
    ----------
    transform
        Pixel to map coordinates.
    size
        (width, height).

    Returns
    -------
    float
        As the raster itself counts, so that it may lie beyond ±180; None for a raster on which
        longitudes within ±180 are in one piece as they are.
    """
    width, height = size
    x = np.array([0, width / 2, width, width, width, width / 2, 0, 0, width / 2])
    y = np.array([0, 0, 0, height / 2, height, height, height, height / 2, height / 2])
    lon = unbroken(crs, LONLAT).transform(*to_map(transform, x, y))[0]
    if not np.isfinite(lon).all() or (np.abs(lon).max() <= 180 and np.ptp(lon) <= 180):
        return None
    return float(lon[-1])


def middle_longitude(transform: Affine, size: tuple[int, int], crs: str) -> float | None:
    """Longitude of the middle of a raster in degrees, as it counts itself; None for other rasters."""
    if not CRS.from_user_input(crs).is_geographic:
        return None
    return float((transform @ (size[0] / 2, size[1] / 2))[0])


def near_longitude(x: NDArray[np.float64], lon: float) -> NDArray[np.float64]:
    """Longitudes of rings of points (N, K) moved by whole turns: each in one piece, as near as can be."""
    with np.errstate(invalid="ignore"):
        middle = x[:, 1:2] + 360 * np.round((lon - x[:, 1:2]) / 360)
        return x + 360 * np.round((middle - x) / 360)


def within_180(lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes brought within ±180; those that are stay as they are."""
    return np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)


def shrunk(footprint: BaseGeometry, border: float) -> BaseGeometry:
    """Return a footprint, which reaches both sides of the antimeridian, without its border.

    Parameters
    ----------
    footprint
        Within ±180, cut at the antimeridian: the cut is no border.
    border
        Width in degrees of latitude.
    """
    south, north = footprint.bounds[1::2]
    if north == 90 or south == -90:
        return _shrunk_at_pole(footprint, border, 90.0 if north == 90 else -90.0)
    whole = around(footprint, 180)
    stretch = max(np.cos(np.radians(whole.centroid.y)), 1e-3)
    local = affine_transform(whole, [stretch, 0, 0, 1, 0, 0])
    inner = local.buffer(-border, join_style="mitre")
    return within_world(affine_transform(inner, [1 / stretch, 0, 0, 1, 0, 0]))


def _shrunk_at_pole(footprint: BaseGeometry, border: float, pole: float) -> BaseGeometry:
    flat = f"+proj=aeqd +lat_0={pole:g} +datum=WGS84"
    there, back = transformer(LONLAT, flat), transformer(flat, LONLAT)
    shape = shapely.transform(
        shapely.segmentize(footprint, 1.0), lambda xy: np.column_stack(there.transform(*xy.T))
    )
    # Both sides of the cut lie on one line now; a metre closes it.
    closed = shapely.make_valid(shape).buffer(1.0)
    inner = closed.buffer(-border * METRES_PER_DEGREE - 1.0, join_style="mitre")
    parts = [part for part in shapely.get_parts(inner).tolist() if part.area > 0]
    rings = (shapely.get_coordinates(shapely.segmentize(part.exterior, 10_000)) for part in parts)
    return shapely.union_all([ring_polygon(*back.transform(*ring[:-1].T)) for ring in rings])


def mend(
    polygons: NDArray[np.object_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    lonlat: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    target: CRS,
) -> None:
    """Replace boxes that the target CRS tears apart by valid ones, in two parts at ±180.

    Parameters
    ----------
    polygons
        (N,), changed in place.
    x, y
        Their corners in the target CRS, (N, 4).
    lonlat
        Their corners in degrees, (N, 4) each; None where the target is in degrees itself.
    target
        CRS of the polygons.
    """
    there = transformer(LONLAT, target.to_wkt())

    def project(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(there.transform(*points.T))

    for row in np.flatnonzero(torn(x, target)):
        lon, lat = (x[row], y[row]) if lonlat is None else (lonlat[0][row], lonlat[1][row])
        parts = shapely.get_parts(ring_polygon(lon, lat)).tolist()
        parts = [shapely.geometry.polygon.orient(part) for part in parts]
        box = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
        polygons[row] = box if lonlat is None else shapely.transform(box, project)


def torn(x: NDArray[np.float64], crs: CRS) -> NDArray[np.bool_]:
    """Which boxes, by the x of their corners (N, 4), lie beyond or across the edge of a CRS's world."""
    if not len(x):
        return np.zeros(0, bool)
    if crs.is_geographic:
        return (np.abs(x).max(axis=1) > 180) | (np.ptp(x, axis=1) > 180)
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    return np.ptp(x, axis=1) * unit > TORN_METRES
