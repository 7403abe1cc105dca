"""Windows of rasters as RGB in 0–1: bands, levels, value ranges, and handles that survive a fork."""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from ...catalog.errors import RasterError
from .headers import is_remote, open_image, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .config import WindowConfig

_log = logging.getLogger("geosweep")

MAX_OPEN = 8
"""Files open at once in a process."""
MAX_DECODED_BYTES = 256 * 2**20
"""Decoded pictures held in a process."""
# These decode from the top for every window, so they are decoded once and held.
_SEQUENTIAL = {"PNG", "JPEG", "WEBP", "BMP", "GIF"}

_inherited: list[Any] = []
"""Handles of a parent process: to use or even to close them in its fork would move its file offsets
and free GDAL's locks under it."""


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
    nodata: float | None
    decode_whole: bool
    footprint: tuple[float, float, float, float] | None

    @property
    def factors(self) -> NDArray[np.float64]:
        """Pixels of the raster for one of the level, as x, y, x, y."""
        return np.array([self.full_width / self.width, self.full_height / self.height] * 2)


class RasterReader:
    """Reads windows of many rasters, with few of them open at a time.

    Handles are opened in the process that reads, and never used across a fork; they are left behind
    when the reader is pickled. One thread at a time may use it.

    Parameters
    ----------
    bands, rescale, resolution
        As in `WindowConfig`.
    """

    def __init__(
        self,
        bands: tuple[int | str, ...] | None = None,
        rescale: tuple[tuple[float, float], ...] | None = None,
        resolution: float | None = None,
    ) -> None:
        self._bands, self._rescale, self._resolution = bands, rescale, resolution
        self._infos: dict[str, RasterInfo] = {}
        self._reset()

    @classmethod
    def of(cls, windows: WindowConfig) -> RasterReader:
        """The reader that these settings ask for."""
        return cls(windows.bands, windows.rescale, windows.resolution)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._handles: OrderedDict[str, rasterio.DatasetReader] = OrderedDict()
        self._decoded: OrderedDict[str, NDArray[Any]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {k: self.__dict__[k] for k in ("_bands", "_rescale", "_resolution", "_infos")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def describe(self, file: str) -> RasterInfo:
        """Read a raster's header, once, leaving nothing open.

        Raises
        ------
        RasterError
            If it can't be opened, or its bands or values need a choice that wasn't made.
        """
        if file not in self._infos:
            self._infos[file] = self._describe(file)
        return self._infos[file]

    def _describe(self, file: str) -> RasterInfo:
        with open_image(file) as dataset:
            bands = self._choose_bands(dataset, file)
            low, high = self._value_range(dataset, bands, file)
            gsd = self._gsd(dataset, file)
            level, factor = self._choose_level(dataset, bands, gsd)
            width, height = dataset.width, dataset.height
            shape = (width, height)
            if level is not None:
                with open_image(file, overview_level=level) as overview:
                    shape = (overview.width, overview.height)
            wide = shape[0] * shape[1] * 3 * np.dtype(dataset.dtypes[0]).itemsize
            return RasterInfo(
                file=file,
                width=shape[0],
                height=shape[1],
                full_width=width,
                full_height=height,
                level=level,
                scale=1.0 if self._resolution is None else self._resolution / (gsd * factor),
                bands=bands,
                low=low,
                high=high,
                nodata=dataset.nodata,
                decode_whole=dataset.driver in _SEQUENTIAL and wide <= MAX_DECODED_BYTES,
                footprint=_footprint(dataset),
            )

    def _choose_bands(self, dataset: rasterio.DatasetReader, file: str) -> tuple[int, int, int]:
        if ColorInterp.palette in dataset.colorinterp:
            raise RasterError(
                f"{shown(file)} holds palette indices, not colours; expand it first with "
                "gdal_translate -expand rgb."
            )
        if self._bands is None:
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
            bands = tuple(_band_number(dataset, band, file) for band in self._bands)
            if len(bands) != 3:
                raise RasterError(f"bands names {len(bands)} bands, but detectors take 3.")
        return bands  # type: ignore[return-value]

    def _value_range(
        self, dataset: rasterio.DatasetReader, bands: tuple[int, ...], file: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._rescale is None:
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
            pairs = self._rescale * (1 if len(self._rescale) == 3 else 3)
        low, high = np.array(pairs, np.float32).T
        return low.reshape(3, 1, 1), high.reshape(3, 1, 1)

    def _gsd(self, dataset: rasterio.DatasetReader, file: str) -> float:
        if self._resolution is None:
            return 1.0
        if dataset.crs is None or dataset.transform.is_identity:
            raise RasterError(
                f"{shown(file)} has no georeferencing, so resolution can't be reached; leave it out."
            )
        return math.sqrt(_pixel_area_m2(dataset))

    def _choose_level(
        self, dataset: rasterio.DatasetReader, bands: tuple[int, ...], gsd: float
    ) -> tuple[int | None, int]:
        if self._resolution is None:
            return None, 1
        # A hair of tolerance: 0.1 m × 4 must count as a 0.4 m overview.
        fitting = [
            (level, factor)
            for level, factor in enumerate(dataset.overviews(bands[0]))
            if gsd * factor <= self._resolution * 1.001
        ]
        return fitting[-1] if fitting else (None, 1)

    def read(self, info: RasterInfo, window: tuple[int, int, int, int]) -> NDArray[np.float32]:
        """Read a window of the level.

        Parameters
        ----------
        info
            From `describe`.
        window
            xoff, yoff, width, height in pixels of the level, inside it.

        Returns
        -------
        NDArray
            float32 (3, height, width) in 0–1; pixels without data are 0 where the range was given.

        Raises
        ------
        RasterError
            If the raster can't be read.
        """
        x, y, width, height = window
        if self._process != os.getpid():
            _inherited.append(self._handles)
            self._process, self._handles = os.getpid(), OrderedDict()
        if info.decode_whole:
            data = self._whole(info)[:, y : y + height, x : x + width]
        else:
            data = self._fetch(info, Window(x, y, width, height))  # type: ignore[call-arg]
        values = data.astype(np.float32)
        values -= info.low
        values /= info.high - info.low
        if self._rescale is not None:
            np.nan_to_num(values, copy=False, nan=0.0)
            np.clip(values, 0, 1, out=values)
            if info.nodata is not None and not np.isnan(info.nodata):
                values[:, (data == info.nodata).all(axis=0)] = 0
        return values

    def _whole(self, info: RasterInfo) -> NDArray[Any]:
        found = self._decoded.get(info.file)
        if found is None:
            found = self._decoded[info.file] = self._fetch(info, None)
            held = sum(array.nbytes for array in self._decoded.values())
            while held > MAX_DECODED_BYTES:
                held -= self._decoded.popitem(last=False)[1].nbytes
        self._decoded.move_to_end(info.file)
        return found

    def _fetch(self, info: RasterInfo, window: Window | None) -> NDArray[Any]:
        dataset = self._handles.get(info.file)
        if dataset is None:
            level = {} if info.level is None else {"overview_level": info.level}
            dataset = self._handles[info.file] = open_image(info.file, **level)
            if len(self._handles) > MAX_OPEN:
                self._handles.popitem(last=False)[1].close()
        self._handles.move_to_end(info.file)
        try:
            return dataset.read(list(info.bands), window=window)
        except (RasterioError, OSError) as error:
            # GDAL's own words may repeat a signed URL.
            reason = "" if is_remote(info.file) else f" ({_reason(error)})"
            raise RasterError(f"{shown(info.file)} can't be read at {window}{reason}.") from None


def _band_number(dataset: rasterio.DatasetReader, band: int | str, file: str) -> int:
    if isinstance(band, str):
        if band not in dataset.descriptions:
            named = [text for text in dataset.descriptions if text]
            raise RasterError(
                f"{shown(file)} has no band named {band!r}; "
                f"its bands are {', '.join(named) if named else f'1 to {dataset.count}, unnamed'}."
            )
        return dataset.descriptions.index(band) + 1
    if not 1 <= band <= dataset.count:
        raise RasterError(
            f"{shown(file)} has bands 1 to {dataset.count}, and bands asks for {band}."
        )
    return band


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


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).strip().rstrip(".")
