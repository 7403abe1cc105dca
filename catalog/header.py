"""What one look at a raster's header tells."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import RasterError
from .gdal import gdal_env
from .hrefs import gdal_path, local_path, public_href, scrub
from .lonlat import ring_polygon
from .signing import is_signed, signed_href

if TYPE_CHECKING:
    import rasterio
    from rasterio.crs import CRS
    from shapely.geometry.base import BaseGeometry

    from .scene import Access

Transform = tuple[float, float, float, float, float, float]

_TIME_TAGS = ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
_TIME_FORMATS = ("%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S")
_OUTLINE_POINTS = 20  # per side; a UTM edge of 100 km then bends by less than a metre between them


@dataclass(frozen=True, slots=True)
class Header:
    """Georeferencing of a raster, as `Scene` holds it, and its acquisition time if tagged."""

    crs: str | None
    transform: Transform | None
    shape: tuple[int, int]
    datetime: datetime | None


def read_header(href: str, *, access: Access | None = None, sign: str | None = None) -> Header:
    """Open `href` once and return its header; remembered for as long as a local file is unchanged.

    Parameters
    ----------
    href
        A path, or an unsigned URL.
    access
        How its bucket wants to be asked.
    sign
        How it is signed: the job's ``source.sign``.

    Raises
    ------
    RasterError
        If it is missing, unreadable or no raster.
    """
    stamp = local_stamp(href)
    if stamp is None:
        # Nothing would tell that a remote file was replaced meanwhile.
        with open_raster(href, access=access, sign=sign) as raster:
            return header_of(raster)
    return _read_local_header(href, stamp)


def local_stamp(href: str) -> str | None:
    """Return ``size-mtime_ns`` of a local file; None for remote and missing ones."""
    path = local_path(href)
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def outline(shape: tuple[int, int], transform: Transform, crs: str) -> BaseGeometry | None:
    """Return the outline of a pixel grid in EPSG:4326.

    Parameters
    ----------
    shape
        (height, width) in pixels.
    transform
        Affine coefficients a, b, c, d, e, f; rotation and shear are respected.
    crs
        Anything rasterio understands.

    Returns
    -------
    Polygon or MultiPolygon
        With points along each side, because straight sides in a projection are curves in degrees;
        cut at the antimeridian. None where the CRS has no relation to longitude and latitude.
    """
    import numpy as np
    from rasterio.errors import RasterioError
    from rasterio.warp import transform as warp_points

    height, width = shape
    step = np.linspace(0, 1, _OUTLINE_POINTS, endpoint=False)
    cols = np.concatenate([step, np.ones_like(step), 1 - step, np.zeros_like(step)]) * width
    rows = np.concatenate([np.zeros_like(step), step, np.ones_like(step), 1 - step]) * height
    a, b, c, d, e, f = transform
    xs, ys = a * cols + b * rows + c, d * cols + e * rows + f
    try:
        lon, lat = warp_points(crs, "EPSG:4326", xs.tolist(), ys.tolist())[:2]
    except (RasterioError, ValueError):
        return None
    if not np.isfinite([lon, lat]).all():
        return None
    outline = ring_polygon(lon, lat)
    return None if outline.is_empty else outline


@contextmanager
def open_raster(
    href: str, *, access: Access | None = None, sign: str | None = None
) -> Iterator[rasterio.DatasetReader]:
    """Open a raster, local or remote, and close it again; parameters as for `read_header`.

    Raises
    ------
    RasterError
        If it is missing, unreadable or no raster; also for what GDAL raises inside the block.
    """
    import rasterio
    from rasterio.errors import RasterioError

    path = local_path(href)
    if path is not None:
        if not path.exists():
            raise RasterError(f"{path} does not exist")
        if path.is_dir():
            raise RasterError(f"{path} is a folder, not a raster")
        if path.stat().st_size == 0:
            raise RasterError(f"{path} is empty (0 bytes)")
    try:
        env = rasterio.Env.from_defaults(**gdal_env(href, access))
        with env, _opened(href, sign) as raster:
            if raster.count == 0:
                raise RasterError(f"{public_href(href)} holds no raster bands, only subdatasets")
            yield raster
    except RasterioError as error:
        raise RasterError(f"{public_href(href)} can't be opened: {_reason(error, href)}") from None


def _opened(href: str, sign: str | None) -> rasterio.DatasetReader:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        # Whether that matters is for the job to say.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(gdal_path(signed_href(href, sign)))
        except RasterioError:
            if not is_signed(href, sign):
                raise
        # The signature may have expired: rasterio doesn't tell a 403 from other failures.
        return rasterio.open(gdal_path(signed_href(href, sign, anew=True)))


def header_of(raster: rasterio.DatasetReader) -> Header:
    """Return the header of an open raster."""
    affine = raster.transform
    georeferenced = raster.crs is not None or not affine.is_identity
    return Header(
        crs=_crs_text(raster.crs) if raster.crs else None,
        transform=tuple(affine)[:6] if georeferenced else None,  # type: ignore[arg-type]
        shape=(raster.height, raster.width),
        datetime=_acquired(raster),
    )


@lru_cache(maxsize=4096)
def _read_local_header(href: str, stamp: str) -> Header:
    with open_raster(href) as raster:
        return header_of(raster)


def _crs_text(crs: CRS) -> str:
    # Only a certain match is named by its code: a near one would move the boxes.
    authority = crs.to_authority(confidence_threshold=100)
    return ":".join(authority) if authority else crs.to_wkt()


def _acquired(raster: rasterio.DatasetReader) -> datetime | None:
    tags = {**raster.tags(), **raster.tags(ns="IMAGERY")}
    for tag in _TIME_TAGS:
        text = str(tags.get(tag, "")).strip()
        for pattern in _TIME_FORMATS:
            try:
                return datetime.strptime(text, pattern).replace(tzinfo=UTC)
            except ValueError:
                continue
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            continue
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _reason(error: Exception, href: str) -> str:
    text = scrub(str(error)).strip().rstrip(".")
    for shown in (public_href(gdal_path(href)), public_href(href)):
        text = text.replace(f"'{shown}'", "it").replace(shown, "it")
    if "not recognized as being in a supported file format" in text:
        return "it is not in a raster format that GDAL knows"
    return text.removeprefix("it: ")
