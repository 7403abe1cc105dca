"""Rectangles of a raster in any steps downwards, with each block decoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .pixels import Rectangle, Strip, overlap
from .stream import band_rows

if TYPE_CHECKING:
    from .raster import RasterSource


class BlockRows:
    """Reads whole rows of blocks and keeps those that the latest rectangle touched.

    Whoever reads a coarser raster by another one's blocks comes to each of its blocks several times.

    Parameters
    ----------
    source
        The raster.
    """

    def __init__(self, source: RasterSource) -> None:
        self._source = source
        self._high = band_rows(source)
        self._sides = (0, 0)
        self._held: dict[int, Strip] = {}

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Give a rectangle of the level; raises RasterError as the raster does."""
        wide = self._source.block[1]
        sides = (x0 // wide * wide, min(-(-x1 // wide) * wide, self._source.width))
        if sides != self._sides:
            self._sides, self._held = sides, {}
        left, right = sides
        strips: dict[int, Strip] = {}
        for row in range(y0 // self._high, -(-y1 // self._high)):
            top = row * self._high
            bottom = min(top + self._high, self._source.height)
            strips[row] = self._held.get(row) or self._source.read(left, top, right, bottom)
        self._held = strips
        some = list(strips.values())
        first = some[0].bounds[1]
        cut = np.s_[y0 - first : y1 - first, x0 - left : x1 - left]
        data = np.concatenate([strip.data for strip in some], axis=1)[(slice(None), *cut)]
        masks = [strip.valid for strip in some if strip.valid is not None]
        valid = np.concatenate(masks)[cut] if masks else None
        bounds: Rectangle = (x0, y0, x1, y1)
        damaged = tuple(bad for strip in some for bad in strip.damaged if overlap(bad, bounds))
        return Strip(bounds, data, valid, damaged)
