"""Cut the crops of detections for classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.crops import detection_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .detect import Found
    from .pixels import PixelSource, Strip
    from .stream import WindowBatch
    from .windows import WindowGrid

    ReadRectangle = Callable[[int, int, int, int], Strip]

WHOLE, PARTLY, EMPTY = 0, 1, 2
"""A crop lies on its raster; partly beside it; there is no pixel of data in it."""


@dataclass(slots=True)
class Cut:
    """Crops of some detections.

    Parameters
    ----------
    crops
        N arrays (h, w, bands) of any sizes: uint8, or float32 of a raster of floats.
    failed
        int64, windows on whose crops the decoder complained: their pixels are not to be trusted.
    outside
        int8 (N,): `WHOLE`, `PARTLY` or `EMPTY`.
    """

    crops: list[NDArray[Any]]
    failed: NDArray[np.int64]
    outside: NDArray[np.int8]

    @property
    def note(self) -> CropNote:
        """All but the pixels."""
        return CropNote(self.failed, self.outside)


@dataclass(slots=True)
class CropNote:
    """What is to be known of crops when they are classified; see `Cut`."""

    failed: NDArray[np.int64]
    outside: NDArray[np.int8]


def cut_crops(
    found: Found,
    batch: WindowBatch,
    grid: WindowGrid,
    expand: int,
    read: ReadRectangle,
    channels: Sequence[int] = (0, 1, 2),
) -> Cut:
    """Cut one crop for each detection out of the pixels of its window.

    Parameters
    ----------
    found
        Detections in the windows of `batch`.
    batch
        The windows' pixels, (B, C, size, size) uint8.
    grid
        The plan that the windows come from.
    expand
        Context in pixels on each side, clamped at the raster's edge.
    read
        Reads a rectangle (x0, y0, x1, y1) of the level, all channels: called only for a crop whose
        context leaves its window.
    channels
        Which of the windows' channels the crop model wants.
    """
    bounds = detection_bounds(found.boxes, expand, grid.width, grid.height)
    slot_of = {index: slot for slot, index in enumerate(batch.index.tolist())}
    corners = grid.offsets(found.window)
    wanted = list(channels)
    crops: list[NDArray[Any]] = []
    failed: set[int] = set()
    for (x0, y0, x1, y1), window, (left, top) in zip(
        bounds.tolist(), found.window.tolist(), corners.tolist(), strict=True
    ):
        inside = left <= x0 and top <= y0 and x1 <= left + grid.size and y1 <= top + grid.size
        if inside:
            rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            pixels = batch.pixels[slot_of[window], wanted, rows, columns]
        else:
            strip = read(x0, y0, x1, y1)
            if strip.damaged:
                failed.add(window)
            pixels = strip.data[wanted].astype(np.uint8, copy=False)
        # Band by band in memory, as they lie in the window: a copy takes a fifth of the time.
        crops.append(np.ascontiguousarray(pixels).transpose(1, 2, 0))
    return Cut(crops, np.array(sorted(failed), np.int64), np.full(len(crops), WHOLE, np.int8))


class RectangleReader:
    """Reads the rare crops whose context leaves their window; opens the raster at the first one."""

    def __init__(self, open_source: Callable[[], PixelSource]) -> None:
        self._open = open_source
        self._source: PixelSource | None = None

    def __call__(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Read a rectangle of the level."""
        if self._source is None:
            self._source = self._open()
        return self._source.read(x0, y0, x1, y1)

    def close(self) -> None:
        """Release the raster, if it was opened."""
        if self._source is not None:
            self._source.close()
            self._source = None
