"""Windows over a pixel grid: where they lie, what each one owns, which are worth reading."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

CORE_MARGIN = 8
"""Pixels by which cores reach over their seam at most, so that jitter of a box's centre between two
windows can't lose it."""
_OUTLINES = 1024


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Overlapping windows that cover a raster, row by row.

    Windows are `size` pixels square. The last one of each row and column is shifted inwards to end
    at the raster's edge; a raster smaller than a window gets a single window that reaches beyond it.

    Parameters
    ----------
    width, height
        Size of the raster at the level that is read, in pixels.
    size
        Side of a window, in pixels of that level.
    overlap
        Shared pixels of neighbouring windows, ``floor(size × fraction)``.
    xs, ys
        int64 offsets of the window columns and rows.
    """

    width: int
    height: int
    size: int
    overlap: int
    xs: NDArray[np.int64]
    ys: NDArray[np.int64]

    @classmethod
    def cover(cls, width: int, height: int, size: int, overlap: float) -> WindowGrid:
        """Plan the windows of a raster; `overlap` is a fraction of `size`."""
        shared = math.floor(size * overlap)
        return cls(
            width,
            height,
            size,
            shared,
            offsets(width, size, shared),
            offsets(height, size, shared),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of windows."""
        return len(self.ys), len(self.xs)

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.ys) * len(self.xs)

    @property
    def valid(self) -> tuple[int, int]:
        """(height, width) of the part of every window that lies on the raster."""
        return min(self.size, self.height), min(self.size, self.width)

    def offsets(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """(N, 2) x and y offsets of the windows numbered `index`, row-major."""
        rows, columns = np.divmod(np.asarray(index, dtype=np.int64), len(self.xs))
        return np.stack([self.xs[columns], self.ys[rows]], axis=-1)

    def in_core(
        self, index: NDArray[np.integer], centres: NDArray[np.floating]
    ) -> NDArray[np.bool_]:
        """Whether each centre lies in the core of its window.

        Cores meet half-way through the overlap of neighbouring windows and so tile the raster; they
        are widened by a small margin (a quarter of the overlap, at most `CORE_MARGIN`), since two
        windows never give an object quite the same box. What is then kept twice is for seam NMS.
        An object that lies whole in just one of two windows always has its centre in that one's core.

        Parameters
        ----------
        index
            (N,) window numbers.
        centres
            (N, 2) x, y in pixels of the level.
        """
        margin = min(self.overlap / 4, CORE_MARGIN)
        rows, columns = np.divmod(np.asarray(index, dtype=np.int64), len(self.xs))
        inside = np.ones(len(rows), dtype=bool)
        for axis, (offsets, position) in enumerate(((self.xs, columns), (self.ys, rows))):
            seams = (offsets[:-1] + offsets[1:] + self.size) / 2
            low = np.concatenate([[-np.inf], seams - margin])[position]
            high = np.concatenate([seams + margin, [np.inf]])[position]
            inside &= (centres[:, axis] >= low) & (centres[:, axis] < high)
        return inside

    def touched(self, region: BaseGeometry) -> NDArray[np.bool_]:
        """(rows, columns) mask of the windows that intersect a region given in level pixels."""
        shapely.prepare(region)
        # Those whose centre lies in the region need no look at their outline.
        mask = self._centres(region, shapely.intersects_xy)
        self._decide(mask, np.flatnonzero(~mask), region, shapely.intersects)
        return mask

    def covered(
        self, region: BaseGeometry, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        """(rows, columns) mask of the windows, or those `among` them, that lie inside a region.

        What counts of a window is its part on the raster.
        """
        shapely.prepare(region)
        # Nor do those whose centre doesn't.
        mask = self._centres(region, shapely.contains_xy) if among is None else among.copy()
        self._decide(mask, np.flatnonzero(mask), region, shapely.covers)
        return mask

    def _centres(self, region: BaseGeometry, predicate: Callable[..., Any]) -> NDArray[np.bool_]:
        x = (self.xs + np.minimum(self.xs + self.size, self.width)) / 2
        y = (self.ys + np.minimum(self.ys + self.size, self.height)) / 2
        return np.asarray(predicate(region, x[None, :], y[:, None]))

    def _decide(
        self,
        mask: NDArray[np.bool_],
        index: NDArray[np.integer],
        region: BaseGeometry,
        predicate: Callable[..., Any],
    ) -> None:
        """Set the windows numbered `index` in a mask by their outlines."""
        # Some at a time: polygons of them all would grow with the scene's area.
        for start in range(0, len(index), _OUTLINES):
            some = index[start : start + _OUTLINES]
            x0, y0 = self.offsets(some).T
            x1 = np.minimum(x0 + self.size, self.width)
            y1 = np.minimum(y0 + self.size, self.height)
            mask.flat[some] = predicate(region, shapely.box(x0, y0, x1, y1))


def offsets(length: int, size: int, overlap: int) -> NDArray[np.int64]:
    """Where windows begin along an axis of so many pixels."""
    last = max(length - size, 0)
    found = np.arange(0, last + 1, max(size - overlap, 1), dtype=np.int64)
    return found if found[-1] == last else np.append(found, last)
