"""Cut the crops of detections for a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..models.crops import detection_bounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .detect import Found
    from .pixels import PixelSource
    from .stream import WindowBatch
    from .windows import WindowGrid

    ReadRectangle = Callable[[int, int, int, int], NDArray[np.uint8]]


def cut_crops(
    found: Found,
    batch: WindowBatch,
    grid: WindowGrid,
    expand: int,
    read: ReadRectangle,
) -> list[NDArray[np.uint8]]:
    """Cut one crop for each detection out of the pixels of its window.

    Parameters
    ----------
    found
        Detections in the windows of `batch`.
    batch
        The windows' pixels, (B, 3, size, size) uint8.
    grid
        The plan that the windows come from.
    expand
        Context in pixels on each side, clamped at the raster's edge.
    read
        Reads a rectangle (x0, y0, x1, y1) of the level as (3, h, w): called only for a crop whose
        context leaves its window.

    Returns
    -------
    list of uint8 arrays
        (h, w, 3) each, of any size.
    """
    bounds = detection_bounds(found.boxes, expand, grid.width, grid.height)
    slot_of = {index: slot for slot, index in enumerate(batch.index.tolist())}
    corners = grid.offsets(found.window)
    crops: list[NDArray[np.uint8]] = []
    for (x0, y0, x1, y1), window, (left, top) in zip(
        bounds.tolist(), found.window.tolist(), corners.tolist(), strict=True
    ):
        inside = left <= x0 and top <= y0 and x1 <= left + grid.size and y1 <= top + grid.size
        if inside:
            pixels = batch.pixels[slot_of[window], :, y0 - top : y1 - top, x0 - left : x1 - left]
        else:
            pixels = read(x0, y0, x1, y1)
        crops.append(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return crops


class RectangleReader:
    """Reads the rare crops whose context leaves their window; opens the raster at the first one."""

    def __init__(self, open_source: Callable[[], PixelSource]) -> None:
        self._open = open_source
        self._source: PixelSource | None = None

    def __call__(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Read a rectangle of the level, (3, h, w)."""
        if self._source is None:
            self._source = self._open()
        return self._source.read(x0, y0, x1, y1).data.astype(np.uint8, copy=False)

    def close(self) -> None:
        """Release the raster, if it was opened."""
        if self._source is not None:
            self._source.close()
            self._source = None
