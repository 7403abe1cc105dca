"""A raster's header as a STAC item."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

from .errors import SourceError
from .fetch import iter_bytes
from .header import Header, Transform, header_of, outline
from .hrefs import local_path, public_href
from .lonlat import bounds
from .stacitems import FILE, PROJECTION

if TYPE_CHECKING:
    import rasterio

_EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
_RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
_MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "JP2OpenJPEG": "image/jp2"}
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_GEOTIFF = "image/tiff; application=geotiff"
_COMMON_NAMES = frozenset({"red", "green", "blue", "pan", "coastal", "rededge", "nir"})
_COMPLEX = {"complex_int16": "cint16", "complex64": "cfloat32", "complex128": "cfloat64"}
_BLOCK = 64  # pixels of which the ground size is taken: centimetre pixels would drown in rounding
_NOMINAL = 0.01  # a projection's own pixel size is kept up to this deviation from the ground
_EXACT = 2**53  # up to here floats hold every whole number
_SHA2_256 = "1220"  # multihash: the code of the algorithm, and 32 bytes

ASSET = "image"


def raster_item(
    raster: rasterio.DatasetReader, href: str, item_id: str, *, times: dict[str, Any], cog: bool
) -> dict[str, Any]:
    """Return the STAC 1.1 item of an open raster, without `file:*`.

    Parameters
    ----------
    raster
        Open.
    href
        What the item is to point to; written without signature.
    item_id
        Unique.
    times
        `datetime`, and `start_datetime` and `end_datetime` where that is null.
    cog
        Whether it is a cloud-optimized GeoTIFF.
    """
    from shapely.ops import orient

    header = header_of(raster)
    properties = dict(times) | _projection(raster, header)
    footprint = None
    if header.crs is not None and header.transform is not None:
        footprint = outline(header.shape, header.transform, header.crs)
        gsd = _ground_size(header.shape, header.transform, header.crs)
        if gsd is not None:
            properties["gsd"] = gsd
    bands = _bands(raster)
    extensions = [PROJECTION]
    extensions += [_EO] * any("eo:common_name" in band for band in bands)
    extensions += [_RASTER] * any("raster:scale" in band for band in bands)
    asset: dict[str, Any] = {"href": public_href(href), "roles": ["data"], "bands": bands}
    media = (_COG if cog else _GEOTIFF) if raster.driver == "GTiff" else _MEDIA.get(raster.driver)
    if media is not None:
        asset["type"] = media
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": extensions,
        "id": item_id,
        "geometry": None if footprint is None else orient(footprint).__geo_interface__,
        "properties": properties,
        "links": [],
        "assets": {ASSET: asset},
    }
    if footprint is not None:
        item["bbox"] = list(bounds(footprint))
    return item


def add_file_info(item: dict[str, Any], href: str, *, checksum: bool) -> None:
    """Put the file's size into the item, and its checksum if asked, which reads all of it.

    Raises
    ------
    SourceError
        If it can't be read.
    """
    asset = item["assets"][ASSET]
    if checksum:
        if href.startswith("/vsi"):
            raise SourceError(
                f"{public_href(href)} can be read by GDAL alone, so not for its checksum: give its URL "
                "or --no-checksum"
            )
        digest, size = hashlib.sha256(), 0
        for chunk in iter_bytes(href):
            digest.update(chunk)
            size += len(chunk)
        asset["file:checksum"] = _SHA2_256 + digest.hexdigest()
        asset["file:size"] = size
    else:
        path = local_path(href)
        if path is None:
            return
        asset["file:size"] = path.stat().st_size
    item["stac_extensions"].append(FILE)


def _projection(raster: rasterio.DatasetReader, header: Header) -> dict[str, Any]:
    fields: dict[str, Any] = {"proj:shape": list(header.shape)}
    if header.crs is not None:
        if "[" in header.crs:
            fields["proj:code"] = None  # so says the extension of a CRS without a code
            fields["proj:wkt2"] = raster.crs.to_wkt(version="WKT2_2019")
        else:
            fields["proj:code"] = header.crs
    if header.transform is not None:
        fields["proj:transform"] = list(header.transform)
        fields["proj:bbox"] = _map_bounds(header.shape, header.transform)
    return fields


def _map_bounds(shape: tuple[int, int], transform: Transform) -> list[float]:
    """Bounds in map units, also of rotated grids, which `rasterio.bounds` gets wrong."""
    height, width = shape
    a, b, c, d, e, f = transform
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    xs = [a * col + b * row + c for col, row in corners]
    ys = [d * col + e * row + f for col, row in corners]
    return [min(xs), min(ys), max(xs), max(ys)]


def _ground_size(shape: tuple[int, int], transform: Transform, crs: str) -> float | None:
    """GSD in metres at the raster's centre: the side of a square of a pixel's area.

    What the projection calls it where that is within 1 % of the ground, since 0.6 is what people
    know; degrees and Web Mercator are measured on the ellipsoid.
    """
    from pyproj import CRS, Geod, Transformer

    height, width = shape
    a, b, c, d, e, f = transform
    cols = [width / 2 + step for step in (0, _BLOCK, _BLOCK, 0)]
    rows = [height / 2 + step for step in (0, 0, _BLOCK, _BLOCK)]
    xs = [a * col + b * row + c for col, row in zip(cols, rows, strict=True)]
    ys = [d * col + e * row + f for col, row in zip(cols, rows, strict=True)]
    parsed = CRS.from_user_input(crs)
    lons, lats = Transformer.from_crs(parsed, 4326, always_xy=True).transform(xs, ys)
    if not all(math.isfinite(value) for value in (*lons, *lats)):
        return None
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(lons, lats)
    ground = math.sqrt(abs(area)) / _BLOCK
    if parsed.is_projected:
        unit = parsed.axis_info[0].unit_conversion_factor
        nominal = math.sqrt(abs(a * e - b * d)) * unit
        if math.isclose(nominal, ground, rel_tol=_NOMINAL):
            return nominal
    return ground or None


def _bands(raster: rasterio.DatasetReader) -> list[dict[str, Any]]:
    colours = [colour.name for colour in raster.colorinterp]
    names = [text or f"b{number}" for number, text in enumerate(raster.descriptions, 1)]
    if not any(raster.descriptions) and len(set(colours)) == len(colours):
        names = colours
    bands = []
    for index, (name, kind) in enumerate(zip(names, raster.dtypes, strict=True)):
        band: dict[str, Any] = {"name": name, "data_type": _COMPLEX.get(kind, kind)}
        nodata = raster.nodatavals[index]
        if nodata is not None:
            band["nodata"] = _number(nodata)
        if raster.units[index]:
            band["unit"] = raster.units[index]
        if colours[index] in _COMMON_NAMES:
            band["eo:common_name"] = colours[index]
        if (raster.scales[index], raster.offsets[index]) != (1.0, 0.0):
            band["raster:scale"] = raster.scales[index]
            band["raster:offset"] = raster.offsets[index]
        bands.append(band)
    return bands


def _number(value: float) -> float | int | str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # Readers of JSON take larger numbers for floats anyway, and parquet has no integers for them.
    return int(value) if float(value).is_integer() and abs(value) <= _EXACT else value
