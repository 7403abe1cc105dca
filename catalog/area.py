"""The area of interest: a box, the geometries of a file, or what both share."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SourceError
from .fetch import read_bytes
from .hrefs import local_path, public_href
from .lonlat import crosses, jumps, short_way
from .spec import BBox, bbox_geometry

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_PARQUET = (".parquet", ".geoparquet")


def area_of_interest(
    bbox: BBox | None, intersects: str | dict[str, Any] | None
) -> BaseGeometry | None:
    """Return the ground that is meant, in EPSG:4326, or None where there is no limit.

    Parameters
    ----------
    bbox
        West, south, east, north in degrees; west is greater than east across the antimeridian.
    intersects
        As for `read_area`. With a bbox, the area is what both share.

    Raises
    ------
    SourceError
        As `read_area` does, or if the two share nothing.
    """
    if intersects is None:
        return None if bbox is None else bbox_geometry(bbox)
    area = read_area(intersects)
    if bbox is None:
        return area
    shared = area.intersection(bbox_geometry(bbox))
    if shared.area == 0:
        raise SourceError(
            f"source.bbox and {_name(intersects)} share no ground: change one of them"
        )
    return shared


def read_area(source: str | dict[str, Any]) -> BaseGeometry:
    """Return the union of all polygons of a file, or of a GeoJSON object, in EPSG:4326.

    Parameters
    ----------
    source
        Path or URL of a GeoJSON, GeoPackage, GeoParquet or other file that GDAL reads as vectors; or
        a GeoJSON geometry, Feature or FeatureCollection as a dictionary.

    Raises
    ------
    SourceError
        If it can't be read, has no CRS, or holds no polygons.
    """
    import shapely

    name = _name(source)
    geometries = _geometries(source).force_2d().make_valid()
    area = geometries.union_all()
    if area.geom_type == "GeometryCollection":
        area = shapely.union_all([part for part in area.geoms if part.area > 0])
    if not area.area > 0:
        raise SourceError(f"{name} holds no polygon: give the outline of an area")
    west, south, east, north = area.bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise SourceError(
            f"{name} reaches {west:g},{south:g},{east:g},{north:g}, which is beyond the globe's "
            "degrees: cut it at the antimeridian, or name its CRS"
        )
    return area


def area_as_geojson(source: str) -> dict[str, Any]:
    """Return a file's geometries as a GeoJSON object, which `read_area` takes for the same area.

    Raises
    ------
    SourceError
        If the file can't be read, has no CRS, or holds no polygons.
    """
    read_area(source)
    return _geometries(source).to_frame("geometry").to_geo_dict(drop_id=True)


def overlap(area: BaseGeometry, footprint: BaseGeometry) -> bool:
    """Whether two areas share more than an edge, so that there are pixels to sweep."""
    return area.intersects(footprint) and not area.touches(footprint)


def _name(source: str | dict[str, Any]) -> str:
    return public_href(source) if isinstance(source, str) else "source.intersects"


def _geometries(source: str | dict[str, Any]) -> Any:
    """All geometries there are, in EPSG:4326."""
    name = _name(source)
    frame = _frame(source, name)
    if frame.crs is None:
        raise SourceError(f"{name} has no CRS: write it with one, such as EPSG:4326")
    shapes = frame.geometry.to_crs("EPSG:4326").dropna()
    jumping = shapes.map(jumps).astype(bool)
    if not frame.crs.is_geographic:
        return shapes.where(~jumping, shapes[jumping].map(short_way))
    for shape in shapes[jumping]:
        if not crosses(shape):  # the whole world has such sides
            west, _, east, _ = shape.bounds
            raise SourceError(
                f"{name} has a side from {west:g} to {east:g} degrees, of which it is not clear which way "
                "round it goes: cut the polygon at the antimeridian, or put corners in between"
            )
    return shapes


def _frame(source: str | dict[str, Any], name: str) -> Any:
    import geopandas
    import pyarrow as pa
    from pyogrio.errors import DataSourceError

    if isinstance(source, str):
        path = local_path(source)
        if path is not None and not path.expanduser().is_file():
            raise SourceError(f"{name} does not exist")
        file: Any = BytesIO(read_bytes(source)) if path is None else path.expanduser()
        parquet = Path(source.partition("?")[0]).suffix.lower() in _PARQUET
    else:
        file, parquet = BytesIO(json.dumps(source).encode()), False
    try:
        return geopandas.read_parquet(file) if parquet else geopandas.read_file(file)
    except (DataSourceError, pa.ArrowException, ValueError, OSError, AttributeError, TypeError):
        raise SourceError(
            f"{name} is no file of geometries: give GeoJSON, GeoPackage or GeoParquet"
        ) from None
