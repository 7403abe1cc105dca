"""Windows of rasters as RGB in 0–1, read with few open files that never cross a fork."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ...catalog.errors import RasterError
from ._rasterinfo import MAX_DECODED_BYTES, RasterInfo, describe_raster
from .headers import is_remote, open_image, reason, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .config import WindowConfig

MAX_OPEN = 8
"""Files open at once in a process."""

_inherited: list[Any] = []
"""Handles of a parent process: to use or even to close them in its fork would move its file offsets
and free GDAL's locks under it."""


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
        self._settings = (bands, rescale, resolution)
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
        return {"_settings": self._settings, "_infos": self._infos}

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
            self._infos[file] = describe_raster(file, *self._settings)
        return self._infos[file]

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
        if info.bounded:
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
            why = "" if is_remote(info.file) else f" ({reason(error)})"
            raise RasterError(f"{shown(info.file)} can't be read at {window}{why}.") from None
