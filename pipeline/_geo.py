"""From pixels to the map: coordinates, sizes and areas."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

_EQUAL_AREA = "EPSG:6933"
_HALF_WORLD = 17_367_530.0
"""Metres along its equator."""
_PLANAR_TOLERANCE = 0.01


def to_map(
    transform: Affine, x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Put pixel coordinates of any shape through an affine transform."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def pixel_area_m2(transform: Affine, size: tuple[int, int], crs: str) -> float:
    """Ground area of a pixel at the raster's centre, in square metres.

    The CRS's own grid area where that is within 1 % of the ground (UTM, state planes: what a GIS
    shows), else the area in an equal-area projection (degrees, Web Mercator).

    Parameters
    ----------
    transform
        Pixel to map coordinates.
    size
        (width, height) of the raster.
    """
    coefficients = np.array([transform[:6]], float)
    return float(pixel_areas_m2(coefficients, np.array([size], float), crs)[0])


def pixel_areas_m2(
    transforms: NDArray[np.float64], sizes: NDArray[np.float64], crs: str
) -> NDArray[np.float64]:
    """As `pixel_area_m2`, of many rasters in one CRS.

    Parameters
    ----------
    transforms
        (N, 6) affine coefficients a to f.
    sizes
        (N, 2) width and height.

    Returns
    -------
    NDArray
        float64 (N,).
    """
    a, b, c, d, e, f = transforms.T[:, :, None]
    # A block of pixels, so that centimetre pixels don't drown in rounding.
    side = 64
    x, y = (sizes / 2).T[:, :, None]
    xs, ys = x + np.array([0, side, side, 0]), y + np.array([0, 0, side, side])
    ring = np.stack([a * xs + b * ys + c, d * xs + e * ys + f], axis=-1)
    ground = _ground_areas(crs, ring) / side**2
    unit = _map_unit(crs)
    if unit is None:
        return ground
    planar = (np.abs(a * e - b * d) * unit**2)[:, 0]
    close = np.abs(planar - ground) <= _PLANAR_TOLERANCE * np.maximum(planar, np.abs(ground))
    return np.where(close, planar, ground)


def ground_sample_distance(transform: Affine, size: tuple[int, int], crs: str | None) -> float:
    """GSD in metres: the square root of a pixel's area, so non-square pixels have one, too.

    Without a CRS, map units are taken for metres.
    """
    if crs is None:
        return math.sqrt(abs(transform.determinant))
    return math.sqrt(pixel_area_m2(transform, size, crs))


def box_areas_m2(
    boxes: NDArray[np.floating], transform: Affine, size: tuple[int, int], crs: str
) -> NDArray[np.float32]:
    """Ground area of pixel boxes (N, 4), by the same rule as `pixel_area_m2`; float32 (N,)."""
    planar = _planar_area(transform, crs)
    area = pixel_area_m2(transform, size, crs)
    edges = boxes.astype(np.float64)
    width, height = edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]
    if planar is not None and area == planar:
        return (width * height * area).astype(np.float32)
    centre = (edges[:, :2] + edges[:, 2:]) / 2
    half = 32.0
    offsets = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    ring = centre[:, None, :] + offsets
    x, y = to_map(transform, ring[..., 0], ring[..., 1])
    ground = _ground_areas(crs, np.stack([x, y], axis=-1))
    return (ground / (2 * half) ** 2 * width * height).astype(np.float32)


def _planar_area(transform: Affine, crs: str) -> float | None:
    unit = _map_unit(crs)
    return None if unit is None else abs(transform.determinant) * unit**2


@lru_cache(maxsize=64)
def _map_unit(crs: str) -> float | None:
    """Metres of a unit of a CRS's grid; None where it has none."""
    parsed = _crs(crs)
    if parsed.is_geographic or not parsed.axis_info:
        return None
    return parsed.axis_info[0].unit_conversion_factor


def _ground_areas(crs: str, rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ground area of rings (N, 4, 2), in square metres."""
    x, y = transformer(crs, _EQUAL_AREA).transform(rings[..., 0], rings[..., 1])
    areas = np.asarray(shapely.area(shapely.polygons(np.stack([x, y], axis=-1))))
    # Across the antimeridian or around a pole, which the projection tears apart.
    for row in np.flatnonzero(np.ptp(x, axis=1) > _HALF_WORLD):
        lon, lat = transformer(crs, "EPSG:4326").transform(*rings[row].T)
        areas[row] = abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
    return areas


@lru_cache(maxsize=64)
def _crs(text: str) -> CRS:
    return CRS.from_user_input(text)


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> Transformer:
    """A cached coordinate transformer in x, y order."""
    return Transformer.from_crs(source, target, always_xy=True)
