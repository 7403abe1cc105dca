"""Small pictures of rasters, at overview resolution, for the map page and the quicklook."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform as warp_points
from rio_tiler.errors import RioTilerError
from rio_tiler.io import Reader
from rio_tiler.models import ImageData

from ..catalog.errors import RasterError, SourceError
from ..catalog.gdal import gdal_env
from ..catalog.hrefs import gdal_path, public_href, scrub
from ..catalog.scene import Access, SideAsset
from ..catalog.signing import signed_href
from ._mercator import HALF_WORLD, turned_x

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

Bounds = tuple[float, float, float, float]
MERCATOR = CRS.from_epsg(3857)


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of a raster.

    Parameters
    ----------
    pixels
        uint8 (H, W, 4), RGBA; alpha is 0 where the raster has no data.
    bounds
        (left, bottom, right, top) in web mercator metres, beyond its right edge for what lies across
        the antimeridian; for a raster without georeferencing in its
        own pixels with y upwards: (0, -height, width, 0).
    """

    pixels: NDArray[np.uint8]
    bounds: Bounds


def read_preview(
    href: str,
    max_px: int,
    *,
    bands: Sequence[int | str] | None = None,
    rescale: Sequence[tuple[float, float]] | None = None,
    georeferenced: bool = True,
    parts: Mapping[str, SideAsset] = MappingProxyType({}),
    access: Access | None = None,
    sign: str | None = None,
) -> Preview:
    """Read a raster in web mercator (or as it lies) with at most `max_px` pixels on a side.

    Reads the coarsest overview that is still finer than the picture. Data other than 8 bit are
    stretched by `rescale`, or else between the 2nd and 98th percentile of the picture itself.

    Parameters
    ----------
    href
        Path or URL of the raster.
    max_px
        Longest side of the picture.
    bands
        Band numbers or names; None for the first three, or the first alone.
    rescale
        (low, high) for all bands or for each.
    georeferenced
        False leaves the raster in pixel coordinates.
    parts
        Where the bands are rasters of their own: each by the band's name. They take the place of
        `href`.
    access, sign
        How the bucket of `href` wants to be asked, and how URLs are signed.

    Raises
    ------
    RasterError
        If the raster can't be read, or has no place on the map.
    """
    named = {name: parts[name] for name in map(str, bands or ()) if name in parts}
    if not named:
        whole = SideAsset(href, access=access or Access())
        image, bounds = _read(whole, max_px, bands, georeferenced, sign)
        return Preview(_to_rgba(image, rescale), bounds)
    name, *others = dict.fromkeys(named)
    image, bounds = _read(named[name], max_px, [name], georeferenced, sign)
    pictures = {name: image.array}
    for name in others:
        other, _ = _read(named[name], max_px, [name], georeferenced, sign, like=(image, bounds))
        pictures[name] = other.array
    chosen = [pictures[name] for name in map(str, bands or ()) if name in pictures]
    stacked = ImageData(np.ma.concatenate(chosen))  # pyright: ignore[reportCallIssue]
    return Preview(_to_rgba(stacked, rescale), bounds)


def _read(
    raster: SideAsset,
    max_px: int,
    bands: Sequence[int | str] | None,
    georeferenced: bool,
    sign: str | None,
    *,
    like: tuple[ImageData, Bounds] | None = None,
) -> tuple[ImageData, Bounds]:
    """Bands of one raster and their bounds; of the size and bounds of another picture, if one is given."""
    href = raster.href
    size: dict[str, Any] = {"max_size": max_px}
    if like is not None:
        size = {"width": like[0].width, "height": like[0].height}
    try:
        path = gdal_path(signed_href(href, sign))
        with rasterio.Env(**gdal_env(href, raster.access)), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                level = _overview_level(dataset, max_px)
                flat = (0.0, -float(dataset.height), float(dataset.width), 0.0)
            with _open(path, level) as dataset, Reader(None, dataset=dataset) as reader:  # pyright: ignore[reportCallIssue]
                indexes = _indexes(dataset, bands)
                if not georeferenced:
                    return reader.preview(indexes=indexes, **size), flat
                bounds = _mercator_bounds(dataset) if like is None else like[1]
                if like is None and bounds[2] > HALF_WORLD:
                    size = _size(dataset, bounds, max_px)
                image = reader.part(
                    bounds,
                    bounds_crs=MERCATOR,
                    dst_crs=MERCATOR,
                    indexes=indexes,
                    resampling_method="bilinear",
                    reproject_method="bilinear",
                    **size,
                )
                return image, bounds
    except (RasterioError, RioTilerError, SourceError, OSError, ValueError) as error:
        raise RasterError(f"{public_href(href)} can't be shown: {scrub(str(error))}") from None


def _open(path: str, level: int | None) -> DatasetReader:
    return rasterio.open(path) if level is None else rasterio.open(path, overview_level=level)


def _overview_level(dataset: DatasetReader, max_px: int) -> int | None:
    """Index of the coarsest overview that has at least `max_px` pixels on its longer side."""
    longest = max(dataset.width, dataset.height)
    level = None
    for index, factor in enumerate(dataset.overviews(1)):
        if longest / factor >= max_px:
            level = index
    return level


def _indexes(dataset: DatasetReader, bands: Sequence[int | str] | None) -> list[int]:
    if bands:
        names = list(dataset.descriptions)
        return [
            band if isinstance(band, int) else names.index(band) + 1
            for band in bands
            if isinstance(band, int) or band in names
        ] or [1]
    return [1, 2, 3] if dataset.count >= 3 else [1]


def _mercator_bounds(dataset: DatasetReader) -> Bounds:
    """Extent of the raster's outline, which may be rotated, in web mercator."""
    if dataset.crs is None:
        raise RasterError(f"{public_href(dataset.name)} has no CRS, so it has no place on the map.")
    steps = np.linspace(0.0, 1.0, 22)
    edge, zero, one = steps, np.zeros_like(steps), np.ones_like(steps)
    columns = np.concatenate([edge, one, edge, zero]) * dataset.width
    rows = np.concatenate([zero, edge, one, edge]) * dataset.height
    xs, ys = dataset.transform @ (columns, rows)
    x, y = (np.array(v) for v in warp_points(dataset.crs, MERCATOR, xs.tolist(), ys.tolist()))
    y = np.clip(np.nan_to_num(y), -HALF_WORLD, HALF_WORLD)
    across = np.ptp(x) > HALF_WORLD or np.abs(x).max() > HALF_WORLD
    if across and np.ptp(xs) * _unit(dataset) < HALF_WORLD:
        x = turned_x(x)  # rather than more than half of the world wide
    else:
        x = np.clip(np.nan_to_num(x), -HALF_WORLD, HALF_WORLD)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _size(dataset: DatasetReader, bounds: Bounds, max_px: int) -> dict[str, int]:
    """Size of a picture across the antimeridian, which GDAL takes for one of the whole world."""
    wide, high = bounds[2] - bounds[0], bounds[3] - bounds[1]
    scale = min(max_px, max(dataset.width, dataset.height)) / max(wide, high)
    return {"width": max(1, round(wide * scale)), "height": max(1, round(high * scale))}


def _unit(dataset: DatasetReader) -> float:
    """Metres in a unit of a raster's coordinates, at the equator."""
    if dataset.crs.is_geographic:
        return HALF_WORLD / 180
    return float(dataset.crs.linear_units_factor[1])


def _to_rgba(image: ImageData, rescale: Sequence[tuple[float, float]] | None) -> NDArray[np.uint8]:
    if rescale or image.array.dtype != np.uint8:
        ranges = list(rescale) if rescale else [_stretch(band) for band in image.array]
        image.rescale(in_range=ranges if len(ranges) == image.count else ranges[:1] * image.count)
    data = np.asarray(image.data)
    data = data[:3] if len(data) >= 3 else np.repeat(data[:1], 3, axis=0)
    return np.ascontiguousarray(np.moveaxis(np.concatenate([data, image.mask[None]]), 0, -1))


def _stretch(band: np.ma.MaskedArray) -> tuple[float, float]:
    values = band.compressed()
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (2, 98)))
    return (low, high) if high > low else (low, low + 1.0)
