"""Remove what neighbouring windows found twice.

``core``: each window keeps the detections whose centre lies in its core; what two windows still
share across a seam is removed here. Windows are compared pair by pair, never detections of one
window with each other (the detector's own NMS has judged those), and per class, as inside a window.
An object that a window's edge cuts off gives two truncated boxes: if both span the windows' common
strip they are one object and are joined.

``nms``: DeepForest's mosaic, to the bit: boxes truncated to integers, one class-agnostic NMS.

Suppression is greedy by score, as in torchvision's `nms`, but looks at neighbours only: both take
time that follows the number of boxes (see `suppress`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .detect import Found
from .suppress import rivals_among, suppress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .suppress import Rivals
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
    some, cut = joined[near], truncated[near]
    areas, negated = _areas(some.boxes), _low_negated(some.boxes)

    def same(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.bool_]:
        yes = (some.window[a] != some.window[b]) & (some.labels[a] == some.labels[b])
        a, b = np.compress(yes, a), np.compress(yes, b)
        inter = _intersection(negated, a, b)
        # A part of an object, seen at the edge of one window, beside more of it in another.
        least = np.minimum(areas[a], areas[b])
        smaller_is_cut = (cut[a] & (areas[a] == least)) | (cut[b] & (areas[b] == least))
        part = smaller_is_cut & (inter > FRAGMENT_OVERLAP * least)
        yes[yes] = part | (_iou(inter, areas[a], areas[b]) > iou)
        return yes

    # Whole boxes first, by score; then truncated ones, the largest first. Ties by position.
    rank = np.lexsort((-np.where(cut, areas, some.scores), cut))
    kept = np.ones(len(joined), bool)
    kept[near] = suppress(some.boxes, rank, same)
    return Merged(joined[kept], order[source[kept]])


def merge_nms(found: Found, grid: WindowGrid, iou: float) -> Merged:
    """One NMS over all windows' boxes, truncated to integers, blind to classes, as DeepForest does.

    The survivors keep their full coordinates.
    """
    boxes = np.trunc(found.boxes)
    areas, negated = _areas(boxes), _low_negated(boxes)

    def same(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.bool_]:
        return _iou(_intersection(negated, a, b), areas[a], areas[b]) > iou

    # Equal scores: DeepForest walks windows column by column.
    rows, columns = np.divmod(found.window, len(grid.xs))
    rank = np.lexsort((rows, columns, -found.scores))
    kept = np.flatnonzero(suppress(boxes, rank, same))
    return Merged(found[kept], kept)


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
    truncated = np.asarray(cut.any(axis=1))
    untouched = (found, np.arange(len(found)), truncated)
    if grid.overlap == 0:
        return untouched
    candidates = np.flatnonzero(truncated)
    part, cut = found[candidates], cut[candidates]
    a, b = rivals_among(part.boxes, _linked(part, cut, grid))
    if not len(a):
        return untouched
    members = np.unique(np.concatenate([a, b]))
    a, b = np.searchsorted(members, a), np.searchsorted(members, b)
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(members),) * 2)
    _, group = connected_components(graph, directed=False)
    chosen, hulls, scores, still_cut = _unite(part[members], group, cut[members])
    members = candidates[members]
    boxes, best = found.boxes.copy(), found.scores.copy()
    boxes[members[chosen]], best[members[chosen]] = hulls, scores
    truncated[members[chosen]] = still_cut
    stays = np.ones(len(found), bool)
    stays[members] = False
    stays[members[chosen]] = True
    united = Found(boxes, found.labels, best, found.window)
    return united[stays], np.flatnonzero(stays), truncated[stays]


def _linked(found: Found, cut: NDArray[np.bool_], grid: WindowGrid) -> Rivals:
    """Whether box `a` of a pair is cut off on the right or below, and `b` is its continuation."""
    rows, columns = np.divmod(found.window, len(grid.xs))

    def linked(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.bool_]:
        yes = (found.window[a] != found.window[b]) & (found.labels[a] == found.labels[b])
        a, b = np.compress(yes, a), np.compress(yes, b)
        either = np.zeros(len(a), bool)
        for axis, place, other in ((0, columns, rows), (1, rows, columns)):
            offsets = grid.xs if axis == 0 else grid.ys
            seam = (place[b] == place[a] + 1) & cut[:, 2 + axis][a] & cut[:, axis][b]
            which = np.flatnonzero(seam)
            p, q = a[which], b[which]
            spans = (
                (np.abs(other[q] - other[p]) <= 1)
                & (found.boxes[p, axis] < offsets[place[q]] + EDGE_TOLERANCE)
                & (found.boxes[q, 2 + axis] > offsets[place[p]] + grid.size - EDGE_TOLERANCE)
            )
            along = _overlap_1d(found.boxes, p, q, 1 - axis) >= JOIN_OVERLAP
            either[which] |= spans & along
        yes[yes] = either
        return yes

    return linked


def _unite(
    found: Found, group: NDArray[np.integer], cut: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Put each group together.

    Returns
    -------
    Of each group its largest member, its hull, the best score, and whether the hull ends at an edge
    that cut one of the members off.
    """
    count = int(group.max()) + 1
    low = np.full((count, 2), np.inf, np.float32)
    high = np.full((count, 2), -np.inf, np.float32)
    score = np.zeros(count, np.float32)
    np.minimum.at(low, group, found.boxes[:, :2])
    np.maximum.at(high, group, found.boxes[:, 2:])
    np.maximum.at(score, group, found.scores)
    by_area = np.lexsort((-_areas(found.boxes), group))
    _, first = np.unique(group[by_area], return_index=True)
    hulls = np.concatenate([low, high], axis=1)
    outer = (cut & (np.abs(found.boxes - hulls[group]) <= EDGE_TOLERANCE)).any(axis=1)
    still_cut = np.zeros(count, bool)
    np.logical_or.at(still_cut, group, outer)
    return by_area[first], hulls, score, still_cut


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


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area.astype(np.float32, copy=False)


def _low_negated(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes with their lower edges negated, so that an intersection's edges are the smaller ones."""
    return boxes * np.array([-1, -1, 1, 1], np.float32)


def _intersection(
    negated: NDArray[np.float32], a: NDArray[np.integer], b: NDArray[np.integer]
) -> NDArray[np.float32]:
    edges = np.minimum(negated.take(a, axis=0), negated.take(b, axis=0))
    width, height = edges[:, 0] + edges[:, 2], edges[:, 1] + edges[:, 3]
    return np.maximum(width, 0) * np.maximum(height, 0)


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
