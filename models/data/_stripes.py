"""Windows out of a raster from top to bottom, so that memory does not grow with its height."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import RasterError
from .headers import reason, shown

if TYPE_CHECKING:
    import rasterio
    from numpy.typing import NDArray

MAX_HELD_BYTES = 256 * 2**20
MIN_WIDTH = 8192
_MAX_BLOCK_ROWS = 2048


@dataclass(slots=True)
class _Held:
    """Decoded rows of a strip of columns; `valid` is None where every pixel has data."""

    left: int
    top: int
    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None

    @property
    def bottom(self) -> int:
        return self.top + self.pixels.shape[1]


def read_windows(
    dataset: rasterio.DatasetReader, bands: Sequence[int], windows: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[Any], bool]]:
    """Read windows so that each block of the file is decoded once.

    Whole rows of blocks are read, and dropped once no later window needs them. Rasters so wide that
    this would pass `MAX_HELD_BYTES` are read in columns, and blocks where columns meet twice.

    Parameters
    ----------
    dataset
        An open raster.
    bands
        1-based numbers.
    windows
        int64 (N, 4): xoff, yoff, width, height, inside the raster, of one height.

    Yields
    ------
    tuple
        Number of the window, its pixels (bands, height, width), which are the caller's to keep, and
        whether any of them has data.

    Raises
    ------
    RasterError
        If the file is cut short or the server fails.
    """
    if not len(windows):
        return
    order = np.lexsort([windows[:, 0], windows[:, 1]])
    for column in _columns(dataset, bands, windows):
        mine = order[np.isin(order, column)]
        yield from _read_column(dataset, bands, windows, mine)


def _read_column(
    dataset: rasterio.DatasetReader,
    bands: Sequence[int],
    windows: NDArray[np.int64],
    order: NDArray[np.int64],
) -> Iterator[tuple[int, NDArray[Any], bool]]:
    high, wide = dataset.block_shapes[bands[0] - 1]
    # A file that is one strip is decoded by GDAL as a whole, but need not be held so.
    high = high if high <= _MAX_BLOCK_ROWS else 1
    left = int(windows[order, 0].min()) // wide * wide
    right = int((windows[order, 0] + windows[order, 2]).max())
    right = min(_up(right, wide), dataset.width)
    held: _Held | None = None
    for number in order:
        x, y, width, height = windows[number].tolist()
        bottom = min(_up(y + height, high), dataset.height)
        if held is None or y >= held.bottom:
            held = None  # freed before more is read
            held = _read(dataset, bands, (left, y // high * high, right, bottom))
        elif y + height > held.bottom:
            below = _read(dataset, bands, (left, held.bottom, right, bottom))
            held = _joined(held, y, below)
        rows = slice(y - held.top, y - held.top + height)
        columns = slice(x - left, x - left + width)
        some = held.valid is None or bool(held.valid[rows, columns].any())
        yield int(number), held.pixels[:, rows, columns].copy(), some


def _joined(held: _Held, top: int, below: _Held) -> _Held:
    """Rows from `top` on, with those below them."""
    pixels = np.concatenate([held.pixels[:, top - held.top :], below.pixels], axis=1)
    valid = None
    if held.valid is not None and below.valid is not None:
        valid = np.concatenate([held.valid[top - held.top :], below.valid])
    return _Held(held.left, top, pixels, valid)


def _read(
    dataset: rasterio.DatasetReader, bands: Sequence[int], bounds: tuple[int, int, int, int]
) -> _Held:
    from rasterio.enums import MaskFlags
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    x0, y0, x1, y1 = bounds
    window = Window(x0, y0, x1 - x0, y1 - y0)  # type: ignore[call-arg]
    try:
        pixels = dataset.read(list(bands), window=window)
        flags = dataset.mask_flag_enums[bands[0] - 1]
        masked = MaskFlags.all_valid not in flags
        valid = dataset.dataset_mask(window=window) != 0 if masked else None
    except (RasterioError, OSError) as error:
        raise RasterError(
            f"{shown(dataset.name)} can't be read at rows {y0} to {y1}: {reason(error)}."
        ) from None
    return _Held(x0, y0, pixels, valid)


def _columns(
    dataset: rasterio.DatasetReader, bands: Sequence[int], windows: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Numbers of the windows to read together: all, unless their rows would not fit in memory."""
    high, wide = dataset.block_shapes[bands[0] - 1]
    rows = int(windows[:, 3].max()) + 2 * min(high, _MAX_BLOCK_ROWS)
    per_column = rows * len(bands) * np.dtype(dataset.dtypes[bands[0] - 1]).itemsize
    affordable = max(MAX_HELD_BYTES // per_column, MIN_WIDTH, int(windows[:, 2].max()))
    if dataset.width <= affordable or wide >= dataset.width:
        return [np.arange(len(windows))]
    groups: list[NDArray[np.int64]] = []
    rest = np.argsort(windows[:, 0], kind="stable")
    while len(rest):
        first = windows[rest[0], 0]
        fits = windows[rest, 0] + windows[rest, 2] - first <= affordable
        groups.append(rest[fits])
        rest = rest[~fits]
    return groups


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
