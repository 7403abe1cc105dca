"""Remove what neighbouring windows found twice.

``core``: each window keeps the detections whose centre lies in its core; what two windows still
share across a seam is removed here. Windows are compared pair by pair, never detections of one
window with each other (the detector's own NMS has judged those), and per class, as inside a window.
An object that a window's edge cuts off gives two truncated boxes: if both span the windows' common
strip they are one object and are joined.

``nms``: DeepForest's mosaic, to the bit: boxes truncated to integers, one class-agnostic NMS.

Pairs come from an STRtree, so both are O(n log n) for objects of bounded size; suppression is greedy
by score, as in torchvision's `nms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .detect import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .windows import WindowGrid

EDGE_TOLERANCE = 3.0
"""Pixels from a window's edge within which a box counts as cut off by it."""
FRAGMENT_OVERLAP = 0.6
"""Share of a truncated box that must lie in a larger one of another window to be a part of it."""
JOIN_OVERLAP = 0.5
"""IoU across the seam (in one dimension) from which two truncated boxes are one object."""


@dataclass(slots=True)
class Merged:
    """Outcome of a merge.

    Parameters
    ----------
    found
        Survivors, in the order they came.
    source
        int64 (N,): which detection that came in each survivor stands for (of joined fragments the
        largest); its crop is the one to classify.
    """

    found: Found
    source: NDArray[np.int64]


def merge_core(found: Found, grid: WindowGrid, iou: float) -> Merged:
    """Join fragments and remove duplicates across seams.

    Parameters
    ----------
    found
        Detections that lie in their windows' cores (see `WindowGrid.in_core`).
    iou
        Two boxes of one class from different windows are one object above this IoU.
    """
    # A fixed order makes the result independent of how windows were batched.
    order = np.lexsort((*found.boxes.T[::-1], found.labels, found.window))
    found = found[order]
    joined, source, truncated = _join_fragments(found, grid)
    near = np.flatnonzero(_near_seams(joined, grid))
    a, b = _pairs(joined.boxes, near)
    different = (joined.window[a] != joined.window[b]) & (joined.labels[a] == joined.labels[b])
    a, b = a[different], b[different]
    inter, areas = _intersection(joined.boxes, a, b), _areas(joined.boxes)
    same = _iou(inter, areas[a], areas[b]) > iou
    # A part of an object, seen at the edge of one window, beside more of it in another.
    smaller = np.where(areas[a] < areas[b], a, b)
    same |= truncated[smaller] & (inter > FRAGMENT_OVERLAP * areas[smaller])
    # Whole boxes first, by score; then truncated ones, the largest first. Ties by position.
    worth = np.where(truncated, areas, joined.scores)
    rank = np.lexsort((np.arange(len(joined)), -worth, truncated))
    kept = greedy_suppress(len(joined), a[same], b[same], rank)
    return Merged(joined[kept], order[source[kept]])


def merge_nms(found: Found, grid: WindowGrid, iou: float) -> Merged:
    """One NMS over all windows' boxes, truncated to integers, blind to classes, as DeepForest does.

    The survivors keep their full coordinates.
    """
    boxes = np.trunc(found.boxes)
    everything = np.arange(len(found))
    a, b = _pairs(boxes, everything)
    areas = _areas(boxes)
    same = _iou(_intersection(boxes, a, b), areas[a], areas[b]) > iou
    # Equal scores: DeepForest walks windows column by column.
    rows, columns = np.divmod(found.window, len(grid.xs))
    rank = np.lexsort((everything, rows, columns, -found.scores))
    kept = greedy_suppress(len(found), a[same], b[same], rank)
    return Merged(found[kept], kept)


def greedy_suppress(
    count: int, a: NDArray[np.integer], b: NDArray[np.integer], rank: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression over given pairs.

    Equal to walking the boxes from best to worst and dropping each one that pairs with a kept one,
    but done in rounds over all pairs at once: a box with no better partner left is kept, and takes
    its partners out.

    Parameters
    ----------
    count
        Number of boxes.
    a, b
        Pairs that exclude each other.
    rank
        Box numbers from best to worst.

    Returns
    -------
    int64 array
        Kept box numbers, ascending.
    """
    place = np.empty(count, np.int64)
    place[rank] = np.arange(count)
    a_first = place[a] < place[b]
    better, worse = np.where(a_first, a, b), np.where(a_first, b, a)
    dropped = np.zeros(count, bool)
    while len(better):
        beaten = np.zeros(count, bool)
        beaten[worse] = True
        winning = ~beaten[better]
        dropped[worse[winning]] = True
        open_ = ~(winning | dropped[better] | dropped[worse])
        better, worse = better[open_], worse[open_]
    return np.flatnonzero(~dropped)


def _join_fragments(
    found: Found, grid: WindowGrid
) -> tuple[Found, NDArray[np.int64], NDArray[np.bool_]]:
    """Replace fragments of one object, cut by a seam, by their union.

    Two boxes from neighbouring windows are fragments of one object if both reach across the whole
    strip that the windows share, each up to its own window's edge, and agree along the seam.

    Returns
    -------
    Detections, the number of the one that came in each stands for, and which ones are still cut off
    by a window's edge.
    """
    cut = _cut_edges(found, grid)
    untouched = (found, np.arange(len(found)), np.asarray(cut.any(axis=1)))
    candidates = np.flatnonzero(cut.any(axis=1))
    if grid.overlap == 0 or len(candidates) < 2:
        return untouched
    a, b = _pairs(found.boxes, candidates)
    a, b = np.concatenate([a, b]), np.concatenate([b, a])
    keep = found.labels[a] == found.labels[b]
    a, b = a[keep], b[keep]
    linked = np.zeros(len(a), bool)
    rows, columns = np.divmod(found.window, len(grid.xs))
    for axis, place, other in ((0, columns, rows), (1, rows, columns)):
        offsets = grid.xs if axis == 0 else grid.ys
        neighbours = (place[b] == place[a] + 1) & (np.abs(other[b] - other[a]) <= 1)
        edge_a = offsets[place[a]] + grid.size
        edge_b = offsets[place[b]]
        spans = (
            cut[a, 2 + axis]
            & cut[b, axis]
            & (found.boxes[a, axis] < edge_b + EDGE_TOLERANCE)
            & (found.boxes[b, 2 + axis] > edge_a - EDGE_TOLERANCE)
        )
        linked |= neighbours & spans & (_overlap_1d(found.boxes, a, b, 1 - axis) >= JOIN_OVERLAP)
    if not linked.any():
        return untouched
    graph = coo_array(
        (np.ones(linked.sum(), bool), (a[linked], b[linked])), shape=(len(found),) * 2
    )
    _, group = connected_components(graph, directed=False)
    return _unite(found, group, cut)


def _unite(
    found: Found, group: NDArray[np.integer], cut: NDArray[np.bool_]
) -> tuple[Found, NDArray[np.int64], NDArray[np.bool_]]:
    """One box for each group: its hull, with the best score; it stands for its largest member.

    A hull is cut off where it ends at an edge that cut one of its members off.
    """
    count = int(group.max()) + 1
    low = np.full((count, 2), np.inf, np.float32)
    high = np.full((count, 2), -np.inf, np.float32)
    score = np.zeros(count, np.float32)
    np.minimum.at(low, group, found.boxes[:, :2])
    np.maximum.at(high, group, found.boxes[:, 2:])
    np.maximum.at(score, group, found.scores)
    by_area = np.lexsort((np.arange(len(found)), -_areas(found.boxes), group))
    _, first = np.unique(group[by_area], return_index=True)
    largest = np.sort(by_area[first])
    which = group[largest]
    boxes = np.concatenate([low[which], high[which]], axis=1)
    united = Found(boxes, found.labels[largest], score[which], found.window[largest])
    hulls = np.concatenate([low, high], axis=1)[group]
    outer = (cut & (np.abs(found.boxes - hulls) <= EDGE_TOLERANCE)).any(axis=1)
    truncated = np.zeros(count, bool)
    np.logical_or.at(truncated, group, outer)
    return united, largest, truncated[which]


def _cut_edges(found: Found, grid: WindowGrid) -> NDArray[np.bool_]:
    """(N, 4): whether a box touches its window's left, top, right, bottom edge inside the raster."""
    corner = grid.offsets(found.window)
    boxes, limits = found.boxes, (grid.width, grid.height)
    cut = np.zeros((len(found), 4), bool)
    for axis in (0, 1):
        low, high = corner[:, axis], corner[:, axis] + grid.size
        cut[:, axis] = (boxes[:, axis] <= low + EDGE_TOLERANCE) & (low > 0)
        cut[:, 2 + axis] = (boxes[:, 2 + axis] >= high - EDGE_TOLERANCE) & (high < limits[axis])
    return cut


def _near_seams(found: Found, grid: WindowGrid) -> NDArray[np.bool_]:
    """Whether a box reaches into a neighbouring window: only those can be seen twice."""
    rows, columns = np.divmod(found.window, len(grid.xs))
    near = np.zeros(len(found), bool)
    for axis, offsets, place in ((0, grid.xs, columns), (1, grid.ys, rows)):
        previous = np.concatenate([[-np.inf], offsets[:-1] + grid.size])[place]
        following = np.concatenate([offsets[1:], [np.inf]])[place]
        near |= (found.boxes[:, axis] <= previous) | (found.boxes[:, 2 + axis] >= following)
    return near


def _pairs(
    boxes: NDArray[np.floating], which: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (a < b) of the boxes numbered `which` that intersect."""
    polygons = shapely.box(*boxes[which].astype(np.float64).T)
    left, right = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    once = left < right
    return which[left[once]].astype(np.int64), which[right[once]].astype(np.int64)


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area.astype(np.float32, copy=False)


def _intersection(
    boxes: NDArray[np.float32], a: NDArray[np.integer], b: NDArray[np.integer]
) -> NDArray[np.float32]:
    low = np.maximum(boxes[a, :2], boxes[b, :2])
    high = np.minimum(boxes[a, 2:], boxes[b, 2:])
    side = np.clip(high - low, 0, None, dtype=np.float32)
    return side[:, 0] * side[:, 1]


def _iou(
    inter: NDArray[np.float32], area_a: NDArray[np.float32], area_b: NDArray[np.float32]
) -> NDArray[np.float64]:
    """In float32 until the comparison, as torchvision computes it."""
    union = area_a + area_b - inter
    ratio = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return ratio.astype(np.float64)


def _overlap_1d(
    boxes: NDArray[np.float32], a: NDArray[np.integer], b: NDArray[np.integer], axis: int
) -> NDArray[np.floating]:
    low = np.maximum(boxes[a, axis], boxes[b, axis])
    high = np.minimum(boxes[a, 2 + axis], boxes[b, 2 + axis])
    hull_low = np.minimum(boxes[a, axis], boxes[b, axis])
    hull_high = np.maximum(boxes[a, 2 + axis], boxes[b, 2 + axis])
    return np.clip(high - low, 0, None) / (hull_high - hull_low)
