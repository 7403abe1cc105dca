"""The STAC item of a grid of detections."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely import Polygon

from ..catalog.records import COLLECTION
from ..catalog.stacitems import FILE, PROCESSING, PROJECTION
from .settings import software_versions

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from .grid import DetectionGrid

_POINTS_PER_SIDE = 21
_FLAT = 1e-9
"""Degrees: points that lie this straight on a line say nothing."""


def item_of(
    grid: DetectionGrid,
    interval: tuple[datetime, datetime] | None,
    collection: dict[str, Any],
    *,
    name: str,
    href: str,
    size: int,
) -> dict[str, Any]:
    """The STAC 1.1 item of a GeoTIFF of `grid`.

    Parameters
    ----------
    grid
        With all detections in it.
    interval
        Times of the first and the last scene; where None the item has the time it was made, flagged by
        ``geosweep:datetime_unknown`` as scenes' items are.
    collection
        The output's.
    name
        The item's id.
    href
        Of the file, seen from the item.
    size
        Of the file in bytes.
    """
    import pystac

    spec, now = grid.spec, datetime.now(UTC)
    first, last = interval or (now, now)
    bounds, geometry = _footprint(grid)
    properties: dict[str, Any] = {
        "title": f"Detections by cells of {spec.cell:g} {spec.unit}",
        "created": pystac.utils.datetime_to_str(now),
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform)[:6],
        "geosweep:fingerprint": collection.get("geosweep:fingerprint"),
        "geosweep:cell": spec.cell,
        "geosweep:detections": grid.inside,
        "geosweep:detections_outside": grid.outside,
        "processing:software": {"geosweep": software_versions()["geosweep"]},
    }
    properties |= {"proj:code": spec.code} if spec.code else {"proj:wkt2": spec.wkt}
    if spec.by is not None:
        properties["geosweep:by"] = spec.by
    if interval is None:
        properties["geosweep:datetime_unknown"] = True
    item = pystac.Item(
        id=name,
        geometry=None if geometry is None else shapely.geometry.mapping(geometry),
        bbox=None if geometry is None else bounds,
        datetime=None,
        start_datetime=first,
        end_datetime=last,
        properties=properties,
        stac_extensions=[PROJECTION, PROCESSING, FILE],
        collection=str(collection["id"]),
    )
    media = pystac.MediaType.JSON
    item.links = [
        pystac.Link(relation, f"../{COLLECTION}", media)
        for relation in ("root", "parent", "collection")
    ]
    bands = [
        {"name": layer.band, "description": layer.text}
        | ({"unit": layer.unit} if layer.unit else {})
        for layer in grid.layers
    ]
    extra = {"data_type": "float64", "nodata": "nan", "bands": bands, "file:size": size}
    asset = pystac.Asset(href, "Grid", media_type=pystac.MediaType.COG, roles=["data"])
    asset.extra_fields = extra
    item.add_asset("data", asset)
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _footprint(grid: DetectionGrid) -> tuple[list[float], BaseGeometry | None]:
    """Bounds in degrees, west > east across the antimeridian, and the geometry."""
    rows, columns = grid.shape
    transform = grid.transform
    left, top = transform @ (0, 0)
    right, bottom = transform @ (columns, rows)
    to_degrees = Transformer.from_crs(grid.spec.crs, "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(
        left, bottom, right, top, densify_pts=_POINTS_PER_SIDE
    )
    bounds = [float(value) for value in (west, south, east, north)]
    if not np.isfinite(bounds).all():
        return bounds, None
    if west > east:
        halves = shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)
        return bounds, shapely.multipolygons(halves)
    step = max(right - left, top - bottom) / _POINTS_PER_SIDE
    ring = shapely.segmentize(shapely.box(left, bottom, right, top), step)
    x, y = to_degrees.transform(*shapely.get_coordinates(ring).T)
    outline = shapely.box(west, south, east, north)
    if np.isfinite([x, y]).all():  # else the grid's border lies beyond what its CRS can show
        exact = Polygon(np.column_stack([x, y]))
        outline = exact if exact.is_valid else outline
    return bounds, outline.simplify(_FLAT)
