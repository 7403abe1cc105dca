"""Rectangles of a raster in any steps downwards, with each block decoded once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .pixels import Rectangle, Strip, overlap
from .stream import band_rows

if TYPE_CHECKING:
    from .raster import RasterSource

ReadEach = Callable[[Sequence[Rectangle]], Generator[Strip]]
"""Reads rectangles of a raster in order."""


def by_block_rows(
    source: RasterSource, rectangles: Sequence[Rectangle], read_each: ReadEach
) -> Generator[Strip]:
    """Give rectangles of the level, put together from whole rows of blocks.

    Whoever reads a coarser raster by another one's blocks comes to each of its blocks several times:
    those that the latest rectangle touched are kept.

    Raises
    ------
    RasterError
        As `read_each` does.
    """
    needed = [_rows_under(source, bounds) for bounds in rectangles]
    before = [[], *needed]
    missing = [row for i, rows in enumerate(needed) for row in rows if row not in before[i]]
    strips = read_each(missing)
    held: dict[Rectangle, Strip] = {}
    try:
        for bounds, rows in zip(rectangles, needed, strict=True):
            held = {row: held.get(row) or next(strips) for row in rows}
            yield _cut(list(held.values()), bounds)
    finally:
        strips.close()


def _rows_under(source: RasterSource, bounds: Rectangle) -> list[Rectangle]:
    """The rows of blocks that a rectangle touches, as wide as its blocks are."""
    x0, y0, x1, y1 = bounds
    high, wide = band_rows(source), source.block[1]
    left, right = x0 // wide * wide, min(-(-x1 // wide) * wide, source.width)
    tops = range(y0 // high * high, y1, high)
    return [(left, top, right, min(top + high, source.height)) for top in tops]


def _cut(strips: list[Strip], bounds: Rectangle) -> Strip:
    """One rectangle out of strips that lie below each other."""
    left, first, _, _ = strips[0].bounds
    x0, y0, x1, y1 = bounds
    cut = np.s_[y0 - first : y1 - first, x0 - left : x1 - left]
    data = np.concatenate([strip.data for strip in strips], axis=1)[(slice(None), *cut)]
    masks = [strip.valid for strip in strips if strip.valid is not None]
    valid = np.concatenate(masks)[cut] if masks else None
    damaged = tuple(bad for strip in strips for bad in strip.damaged if overlap(bad, bounds))
    return Strip(bounds, data, valid, damaged)
