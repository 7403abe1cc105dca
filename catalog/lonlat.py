"""Shapes in longitude and latitude, on a globe that has an antimeridian and two poles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from shapely.geometry.base import BaseGeometry

    from .spec import BBox

_ROUNDING = 1e-9  # degrees: a tenth of a millimetre beyond ±180 is no second part


def ring_polygon(lon: ArrayLike, lat: ArrayLike) -> BaseGeometry:
    """Return what a ring of points encloses, in EPSG:4326.

    From each point the ring takes the shorter way round the globe to the next, so that a ring across
    the antimeridian is one, and one around a pole holds the pole.

    Parameters
    ----------
    lon, lat
        Degrees, float (N,), not closed; longitudes may lie beyond ±180.

    Returns
    -------
    Polygon or MultiPolygon
        Within ±180, in two parts where it crosses the antimeridian, as RFC 7946 wants it.
    """
    import numpy as np
    import shapely

    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    x, y = np.unwrap(np.append(lon, lon[0]), period=360), np.append(lat, lat[0])
    around_pole = abs(x[-1] - x[0]) > 180
    if around_pole:
        pole = np.copysign(90.0, lat.mean())
        x, y = np.append(x, [x[-1], x[0]]), np.append(y, [pole, pole])
    polygon = shapely.Polygon(np.column_stack([x, y]))
    polygon = within_world(polygon if polygon.is_valid else shapely.make_valid(polygon))
    # Where the ring closes, both ends are to be one meridian, which rounding would part.
    return shapely.set_precision(polygon, 1e-9) if around_pole else polygon


def within_world(shape: BaseGeometry) -> BaseGeometry:
    """Return a shape, whose longitudes may lie beyond ±180, cut and moved into range."""
    import numpy as np
    import shapely
    from shapely.affinity import translate

    west, _, east, _ = shape.bounds
    if shape.is_empty or (west >= -180 and east <= 180):
        return shape
    if west >= -180 - _ROUNDING and east <= 180 + _ROUNDING:
        return shapely.transform(shape, lambda xy: xy.clip([-180, -np.inf], [180, np.inf]))
    shifts = range(-360 * round(east / 360), 360 * round(-west / 360) + 1, 360)
    world = shapely.box(-180, -90, 180, 90)
    return _polygons([translate(shape, shift).intersection(world) for shift in shifts])


def around(shape: BaseGeometry, lon: float) -> BaseGeometry:
    """Return a shape within ±180 put together around a meridian: within 180° to both sides of it."""
    import shapely
    from shapely.affinity import translate

    west, _, east, _ = shape.bounds
    low, high = lon - 180, lon + 180
    if low <= west and east <= high:
        return shape
    window = shapely.box(low, -90, high, 90)
    turns = range(360 * round((low - 180) / 360), 360 * round((high + 180) / 360) + 1, 360)
    return _polygons([translate(shape, turn).intersection(window) for turn in turns])


def _polygons(shapes: list[BaseGeometry]) -> BaseGeometry:
    """Union of shapes, without lines where they only touch."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shapes)).tolist()
    return shapely.union_all([part for part in parts if part.area > 0])


def crosses(shape: BaseGeometry) -> bool:
    """Whether a shape within ±180 reaches both sides of the antimeridian."""
    west, _, east, _ = shape.bounds
    return west == -180 and east == 180


def bounds(shape: BaseGeometry) -> BBox:
    """Return west, south, east, north of a shape; west is greater than east across the antimeridian."""
    west, south, east, north = shape.bounds
    if crosses(shape):
        left, _, right, _ = around(shape, 180).bounds
        if right - left < 359.999:  # or it goes all the way round
            west, east = left, right - 360
    return float(west), float(south), float(east), float(north)


def polygon_of(
    geometry: dict[str, Any] | None, outline: Callable[[], BaseGeometry | None] = lambda: None
) -> BaseGeometry | None:
    """Return an item's geometry as valid polygons within ±180, or None where it is none.

    Parameters
    ----------
    geometry
        GeoJSON, as providers have it.
    outline
        Gives that of the item's pixels, where it is known. It takes the place of a geometry that is
        null or no polygon, and of one that jumps from 179 to -179. Where it is not known, such
        polygons are taken to go the short way, across the antimeridian.
    """
    import shapely
    from shapely.geometry import shape

    if not geometry:
        return outline()
    try:
        found = shapely.force_2d(shape(geometry))
        if jumps(found):
            known = outline()
            if known is not None:
                return known
            found = short_way(found)
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, AttributeError):
        return outline()
    found = within_world(found if found.is_valid else shapely.make_valid(found))
    if found.geom_type not in ("Polygon", "MultiPolygon"):
        found = _polygons([found])  # a point stands for a place, `make_valid` leaves spikes
    return outline() if found.is_empty else found


def short_way(shape: BaseGeometry) -> BaseGeometry:
    """Return polygons that jump from 179 to -179 cut at the antimeridian instead."""
    import antimeridian
    from shapely.geometry import shape as shape_of

    return shape_of(antimeridian.fix_shape(shape, fix_winding=True, great_circle=False))


def jumps(shape: BaseGeometry) -> bool:
    """Whether two neighbouring corners of a shape are more than half of the globe apart."""
    import numpy as np
    import shapely

    west, _, east, _ = shape.bounds
    if not east - west > 180:
        return False
    rings = shapely.get_rings(shapely.get_parts(shape)).tolist()
    steps = (np.diff(shapely.get_coordinates(ring)[:, 0]) for ring in rings)
    return any((np.abs(step) > 180).any() for step in steps)
