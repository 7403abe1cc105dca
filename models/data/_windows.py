"""Boxes and windows: where windows lie, and what of a box is left in one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def window_offsets(length: int, size: int, overlap: float) -> NDArray[np.int64]:
    """Offsets of the windows that cover `length` pixels.

    The rule of prediction: neighbours share ``floor(size × overlap)`` pixels, and the last window is
    shifted inwards to end at the edge.
    """
    last = max(length - size, 0)
    step = max(size - math.floor(size * overlap), 1)
    offsets = np.arange(0, last + 1, step, dtype=np.int64)
    return offsets if offsets[-1] == last else np.append(offsets, last)


def cut_boxes(
    boxes: NDArray[np.floating],
    window: ArrayLike,
    *,
    min_visible: float,
    min_side: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clip boxes to a window, in the window's coordinates.

    Parameters
    ----------
    boxes
        (N, 4): xmin, ymin, xmax, ymax.
    window
        xoff, yoff, width, height: (4,) for all boxes, or (N, 4).
    min_visible, min_side
        A box that is cut is kept if this share of its area and this many pixels of its shorter side
        are left; one that leaves no area is never kept.

    Returns
    -------
    tuple
        The boxes that are kept, float64 (M, 4), and which those are, bool (N,).
    """
    window = np.asarray(window, np.float64)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    local = np.clip(boxes - window[..., [0, 1, 0, 1]], 0, window[..., [2, 3, 2, 3]])
    sides = local[:, 2:] - local[:, :2]
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.prod(sides, axis=1)
    whole = left >= area * (1 - 1e-9)
    kept = whole | ((left >= min_visible * area) & (sides.min(axis=1) >= min_side))
    kept &= left > 0
    return local[kept], kept
