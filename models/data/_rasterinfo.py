"""What training needs of a raster's header: bands, value range, level, scale, place."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.warp import transform, transform_bounds

from ...catalog.errors import RasterError
from .headers import band_number, open_image, shown

if TYPE_CHECKING:
    import rasterio
    from numpy.typing import NDArray

_log = logging.getLogger("geosweep")

MAX_DECODED_BYTES = 256 * 2**20
"""Decoded pictures held in a process."""
# These decode from the top for every window, so they are decoded once and held.
_SEQUENTIAL = {"PNG", "JPEG", "WEBP", "BMP", "GIF"}


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """What a raster's header says about the level that is read.

    Parameters
    ----------
    file
        Path or URL.
    width, height
        Size of the level in pixels.
    full_width, full_height
        Size of the raster.
    level
        Overview number, None for the raster itself.
    scale
        Pixels of the level for one training pixel.
    bands
        1-based numbers of the three bands.
    low, high
        float32 (3, 1, 1): the values that become 0 and 1.
    bounded
        Whether that range was given, so that values may lie outside it.
    nodata
        The value of pixels without data, None if there is none.
    decode_whole
        Whether windows are cut from the whole picture, decoded once.
    footprint
        west, south, east, north in degrees; None without georeferencing.
    """

    file: str
    width: int
    height: int
    full_width: int
    full_height: int
    level: int | None
    scale: float
    bands: tuple[int, int, int]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    bounded: bool
    nodata: float | None
    decode_whole: bool
    footprint: tuple[float, float, float, float] | None

    @property
    def factors(self) -> NDArray[np.float64]:
        """Pixels of the raster for one of the level, as x, y, x, y."""
        return np.array([self.full_width / self.width, self.full_height / self.height] * 2)


def describe_raster(
    file: str,
    bands: tuple[int | str, ...] | None,
    rescale: tuple[tuple[float, float], ...] | None,
    resolution: float | None,
) -> RasterInfo:
    """Read a raster's header, leaving nothing open.

    Parameters
    ----------
    file
        Path or URL.
    bands, rescale, resolution
        As in `WindowConfig`.

    Raises
    ------
    RasterError
        If it can't be opened, or its bands or values need a choice that wasn't made.
    """
    with open_image(file) as dataset:
        chosen = _choose_bands(dataset, bands, file)
        low, high = _value_range(dataset, chosen, rescale, file)
        gsd = 1.0 if resolution is None else _gsd(dataset, file)
        level, factor = _choose_level(dataset, chosen[0], gsd, resolution)
        width, height = dataset.width, dataset.height
        shape = (width, height)
        if level is not None:
            with open_image(file, overview_level=level) as overview:
                shape = (overview.width, overview.height)
        decoded = shape[0] * shape[1] * 3 * np.dtype(dataset.dtypes[0]).itemsize
        return RasterInfo(
            file=file,
            width=shape[0],
            height=shape[1],
            full_width=width,
            full_height=height,
            level=level,
            scale=1.0 if resolution is None else resolution / (gsd * factor),
            bands=chosen,
            low=low,
            high=high,
            bounded=rescale is not None,
            nodata=dataset.nodata,
            decode_whole=dataset.driver in _SEQUENTIAL and decoded <= MAX_DECODED_BYTES,
            footprint=_footprint(dataset),
        )


def _choose_bands(
    dataset: rasterio.DatasetReader, wanted: tuple[int | str, ...] | None, file: str
) -> tuple[int, int, int]:
    if ColorInterp.palette in dataset.colorinterp:
        raise RasterError(
            f"{shown(file)} holds palette indices, not colours; expand it first with "
            "gdal_translate -expand rgb."
        )
    if wanted is None:
        bands = tuple(
            i
            for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if kind != ColorInterp.alpha
        )
        if len(bands) != 3:
            raise RasterError(
                f"{shown(file)} has {len(bands)} bands and detectors take 3: say which with bands, for "
                "example [1, 2, 3], or [1, 1, 1] for grey."
            )
    else:
        bands = tuple(band_number(dataset, band, name=shown(file)) for band in wanted)
        if len(bands) != 3:
            raise RasterError(f"bands names {len(bands)} bands, but detectors take 3.")
    return bands  # type: ignore[return-value]


def _value_range(
    dataset: rasterio.DatasetReader,
    bands: tuple[int, ...],
    rescale: tuple[tuple[float, float], ...] | None,
    file: str,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if rescale is None:
        kinds = [np.dtype(dataset.dtypes[band - 1]) for band in bands]
        odd = next((kind for kind in kinds if kind.kind != "u"), None)
        if odd is not None:
            raise RasterError(
                f"{shown(file)} is {odd}, which has no natural black and white: say which values they "
                "are with rescale, for example [0, 3000]."
            )
        if any(kind.itemsize > 1 for kind in kinds):
            _log.info(
                "%s is %s: its values are divided by %d; give rescale if white is darker.",
                shown(file),
                kinds[0],
                np.iinfo(kinds[0]).max,
            )
        pairs = [(0.0, float(np.iinfo(kind).max)) for kind in kinds]
    else:
        pairs = rescale if len(rescale) == 3 else rescale * 3
    low, high = np.array(pairs, np.float32).T
    return low.reshape(3, 1, 1), high.reshape(3, 1, 1)


def _gsd(dataset: rasterio.DatasetReader, file: str) -> float:
    if dataset.crs is None or dataset.transform.is_identity:
        raise RasterError(
            f"{shown(file)} has no georeferencing, so resolution can't be reached; leave it out."
        )
    return math.sqrt(_pixel_area_m2(dataset))


def _choose_level(
    dataset: rasterio.DatasetReader, band: int, gsd: float, resolution: float | None
) -> tuple[int | None, int]:
    if resolution is None:
        return None, 1
    # A hair of tolerance: 0.1 m × 4 must count as a 0.4 m overview.
    fitting = [
        (level, factor)
        for level, factor in enumerate(dataset.overviews(band))
        if gsd * factor <= resolution * 1.001
    ]
    return fitting[-1] if fitting else (None, 1)


def _pixel_area_m2(dataset: rasterio.DatasetReader) -> float:
    """Ground area of a pixel in the middle, by the rule of the job's `windows.resolution`.

    The grid's own area where that is within 1 % of the ground (UTM, state planes), else that of an
    equal-area projection (degrees, Web Mercator).
    """
    side = 64  # so that centimetre pixels don't drown in rounding
    x, y = dataset.width / 2, dataset.height / 2
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    xs, ys = zip(*(dataset.transform * corner for corner in corners), strict=True)
    east, north = (np.array(v) for v in transform(dataset.crs, "EPSG:6933", xs, ys))
    ground = abs(np.sum(east * np.roll(north, -1) - np.roll(east, -1) * north)) / 2 / side**2
    if not dataset.crs.is_geographic:
        planar = abs(dataset.transform.determinant) * dataset.crs.linear_units_factor[1] ** 2
        if math.isclose(planar, ground, rel_tol=0.01):
            return planar
    return float(ground)


def _footprint(dataset: rasterio.DatasetReader) -> tuple[float, float, float, float] | None:
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    return transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
