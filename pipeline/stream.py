"""Stream windows out of a raster by block-row bands, so that each block is decoded once.

A band is a full-width rectangle one block row high (several, where blocks are low, as in striped
files). A thread reads bands ahead; window pieces are copied from the few bands that a row of windows
spans straight into the batch buffer; a band is dropped when no later window needs it. Memory is
about width × block height × bands × (span + read-ahead), whatever the raster's height. Rasters so
wide that this would pass `MAX_HELD_BYTES` are split into columns along block edges.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ._buffers import Buffers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .pixels import PixelSource, Rectangle, Strip
    from .windows import WindowGrid

log = logging.getLogger("geosweep")

MAX_HELD_BYTES = 256 * 2**20
MIN_COLUMN_PIXELS = 8192
MIN_BAND_ROWS = 256
MAX_BAND_ROWS = 2048
READ_AHEAD = 3
MAX_AHEAD_BYTES = 80 * 2**20
"""Of bands that a source reads ahead, if it is one that gains by more than `READ_AHEAD` of them."""


@dataclass(slots=True)
class WindowBatch:
    """Windows ready for a detector.

    Parameters
    ----------
    pixels
        (B, C, size, size), the source's dtype; zeros where a window reaches beyond a small raster.
    index
        int64 (B,) window numbers in the grid.
    """

    pixels: NDArray[Any]
    index: NDArray[np.int64]


@dataclass(slots=True)
class StreamCounts:
    """What became of the windows that were to be read."""

    read: int = 0
    nodata: int = 0
    damaged: int = 0
    damaged_windows: list[int] = field(default_factory=list)
    decoded_bytes: int = 0
    stored_bytes: int = 0

    @property
    def bytes(self) -> tuple[int, int]:
        """Decoded and stored."""
        return self.decoded_bytes, self.stored_bytes


def warn_of_damage(name: str, counts: StreamCounts) -> None:
    """Say in the log which windows were left out since their blocks are corrupt, if any were."""
    if counts.damaged:
        some = ", ".join(map(str, counts.damaged_windows[:5]))
        more = ", …" if counts.damaged > 5 else ""
        log.warning(
            "%s: %d of its windows (%s%s) are left out, since the file's blocks there are corrupt",
            name,
            counts.damaged,
            some,
            more,
        )


def stream_windows(
    source: PixelSource,
    grid: WindowGrid,
    wanted: NDArray[np.bool_] | None = None,
    *,
    batch_size: int = 8,
    counts: StreamCounts | None = None,
) -> Iterator[WindowBatch]:
    """Yield batches of windows, row by row, reading ahead.

    Parameters
    ----------
    source
        Opened raster; it is used by its reading threads alone until the iterator ends or is closed.
    grid
        Window plan over the source's level.
    wanted
        (rows, columns) mask of windows to read; None for all. Bands that no wanted window needs are
        not read.
    batch_size
        Windows in a batch; only the last one is smaller.
    counts
        Filled while streaming.

    Raises
    ------
    RasterError
        When a band can't be read. Batches before it have been yielded.
    """
    tally = counts if counts is not None else StreamCounts()
    mask = np.ones(grid.shape, bool) if wanted is None else wanted
    batch = _Batch(grid, source.count, source.dtype, batch_size)
    for columns in _split_columns(source, grid):
        part = np.zeros_like(mask)
        part[:, columns] = mask[:, columns]
        if part.any():
            yield from _stream_part(source, grid, part, batch, tally)
    if batch.filled:
        yield batch.take()


def _stream_part(
    source: PixelSource,
    grid: WindowGrid,
    wanted: NDArray[np.bool_],
    batch: _Batch,
    counts: StreamCounts,
) -> Iterator[WindowBatch]:
    bands = _plan_bands(source, grid, wanted)
    strips = source.read_each(bands, _bands_ahead(source, bands[0]))
    held: deque[Strip] = deque()
    try:
        for row in np.flatnonzero(wanted.any(axis=1)):
            top = int(grid.ys[row])
            bottom = min(top + grid.size, grid.height)
            while held and held[0].bounds[3] <= top:
                held.popleft()
            while not held or held[-1].bounds[3] < bottom:
                strip = next(strips)
                if strip.bounds[3] > top:
                    held.append(strip)
            for column in np.flatnonzero(wanted[row]):
                index = int(row) * len(grid.xs) + int(column)
                state = batch.add(index, int(grid.xs[column]), top, held)
                if state == "nodata":
                    counts.nodata += 1
                elif state == "damaged":
                    counts.damaged += 1
                    counts.damaged_windows.append(index)
                else:
                    counts.read += 1
                if batch.full:
                    yield batch.take()
    finally:
        strips.close()


class _Batch:
    """A batch buffer being filled with windows copied out of strips."""

    def __init__(self, grid: WindowGrid, count: int, dtype: np.dtype, capacity: int) -> None:
        self._size = grid.size
        self._limits = (grid.width, grid.height)
        self._shape = (capacity, count, grid.size, grid.size)
        self._dtype = dtype
        # A window can only reach beyond the raster where the raster is smaller than a window.
        self._padded = grid.valid != (grid.size, grid.size)
        self._index: list[int] = []
        self._buffers = Buffers()
        self._pixels: NDArray[Any] | None = None

    @property
    def filled(self) -> int:
        return len(self._index)

    @property
    def full(self) -> bool:
        return len(self._index) == self._shape[0]

    def add(self, index: int, x: int, y: int, strips: deque[Strip]) -> str:
        """Copy one window in; 'nodata' and 'damaged' ones leave the buffer as it was."""
        if self._pixels is None:
            self._pixels = self._buffers.empty(self._shape, self._dtype)
            if self._padded:
                self._pixels[:] = 0
        slot = self._pixels[len(self._index)]
        right = min(x + self._size, self._limits[0])
        bottom = min(y + self._size, self._limits[1])
        any_valid = False
        for strip in strips:
            x0, y0, _, y1 = strip.bounds
            low, high = max(y, y0), min(bottom, y1)
            if low >= high:
                continue
            if strip.is_damaged((x, y, right, bottom)):
                return "damaged"
            rows, columns = slice(low - y0, high - y0), slice(x - x0, right - x0)
            slot[:, low - y : high - y, : right - x] = strip.data[:, rows, columns]
            any_valid = any_valid or strip.valid is None or bool(strip.valid[rows, columns].any())
        if not any_valid:
            return "nodata"
        self._index.append(index)
        return "read"

    def take(self) -> WindowBatch:
        """Hand the buffer over; the next window starts a new one."""
        assert self._pixels is not None
        batch = WindowBatch(self._pixels[: self.filled], np.array(self._index, dtype=np.int64))
        self._pixels, self._index = None, []
        return batch


def _plan_bands(
    source: PixelSource, grid: WindowGrid, wanted: NDArray[np.bool_]
) -> list[Rectangle]:
    """Rectangles to read, top to bottom, without rows and columns that no wanted window needs."""
    columns = np.flatnonzero(wanted.any(axis=0))
    wide = source.block[1]
    left = int(grid.xs[columns[0]]) // wide * wide
    right = int(grid.xs[columns[-1]]) + grid.size
    right = min(-(-right // wide) * wide, source.width)
    band = band_rows(source)
    tops: set[int] = set()
    for row in np.flatnonzero(wanted.any(axis=1)):
        top = int(grid.ys[row])
        bottom = min(top + grid.size, source.height)
        tops.update(range(top // band * band, bottom, band))
    return [(left, top, right, min(top + band, source.height)) for top in sorted(tops)]


def band_rows(source: PixelSource) -> int:
    """Height of a band: one block row, or enough of them to be worth a read call.

    A file that is one giant strip can't be decoded in part; it is still handed out in bounded bands.
    """
    high = source.block[0]
    if high < MIN_BAND_ROWS:
        return high * -(-MIN_BAND_ROWS // high)
    return min(high, MAX_BAND_ROWS)


def _bands_ahead(source: PixelSource, band: Rectangle) -> int:
    """Bands to read before they are wanted: one more than are read at a time, if there is room."""
    pixels = (band[2] - band[0]) * (band[3] - band[1])
    affordable = MAX_AHEAD_BYTES / (pixels * _bytes_ahead(source))
    return max(READ_AHEAD, min(source.lanes + 1, int(affordable)))


def _bytes_ahead(source: PixelSource) -> float:
    """Bytes for a pixel that is read ahead: as the file has it, or as windows do."""
    return max(source.pixel_bytes, source.count * source.dtype.itemsize)


def _split_columns(source: PixelSource, grid: WindowGrid) -> list[slice]:
    """Window columns to stream together: all, unless their bands would not fit in memory."""
    band = band_rows(source)
    held = (grid.size + band) * source.count * source.dtype.itemsize
    per_column = held + band * READ_AHEAD * _bytes_ahead(source)
    affordable = max(int(MAX_HELD_BYTES / per_column), MIN_COLUMN_PIXELS, grid.size)
    untiled = source.block[1] >= source.width
    if source.width <= affordable or untiled:
        return [slice(0, len(grid.xs))]
    parts: list[slice] = []
    first = 0
    for column in range(len(grid.xs)):
        if grid.xs[column] + grid.size - grid.xs[first] > affordable:
            parts.append(slice(first, column))
            first = column
    return [*parts, slice(first, len(grid.xs))]
