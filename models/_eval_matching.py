"""Which predicted box is which labelled one: overlapping pairs, and one-to-one matchings of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 5_000
"""Labelled boxes in one assignment problem, whose time grows faster than its size."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Predictions and labelled boxes that overlap.

    Parameters
    ----------
    truth, found
        int64 (P,): the labelled box and the prediction of each pair.
    shared
        float64 (P,): area that both cover, greater than 0.
    iou
        float64 (P,): that over the area that either covers.
    """

    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    shared: NDArray[np.float64]
    iou: NDArray[np.float64]

    def where(self, keep: NDArray[np.bool_]) -> Pairs:
        """Those pairs for which `keep` (P,) is true."""
        return Pairs(self.truth[keep], self.found[keep], self.shared[keep], self.iou[keep])

    @staticmethod
    def joined(parts: list[Pairs]) -> Pairs:
        """Several sets of pairs as one."""
        empty = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
        return Pairs(
            np.concatenate([part.truth for part in [empty, *parts]]),
            np.concatenate([part.found for part in [empty, *parts]]),
            np.concatenate([part.shared for part in [empty, *parts]]),
            np.concatenate([part.iou for part in [empty, *parts]]),
        )


def box_iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of each box of `a` (N, 4) with each of `b` (M, 4), as (N, M)."""
    a = np.asarray(a, np.float64).reshape(-1, 4)
    b = np.asarray(b, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=2)
    union = _area(a)[:, None] + _area(b)[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def overlapping_boxes(truth: NDArray[np.floating], found: NDArray[np.floating]) -> Pairs:
    """All pairs of labelled boxes (M, 4) and predictions (N, 4) that share some area."""
    truth = np.asarray(truth, np.float64).reshape(-1, 4)
    found = np.asarray(found, np.float64).reshape(-1, 4)
    f, t = shapely.STRtree(_rectangles(truth)).query(_rectangles(found))
    sides = np.minimum(truth[t, 2:], found[f, 2:]) - np.maximum(truth[t, :2], found[f, :2])
    shared = np.prod(np.clip(sides, 0, None), axis=1)
    union = _area(truth)[t] + _area(found)[f] - shared
    return _pairs(t, f, shared, union)


def overlapping_polygons(truth: NDArray[np.object_], found: NDArray[np.object_]) -> Pairs:
    """All pairs of labelled polygons (M,) and predicted ones (N,) that share some area."""
    f, t = shapely.STRtree(truth).query(found, predicate="intersects")
    shared = shapely.area(shapely.intersection(truth[t], found[f]))
    union = shapely.area(truth)[t] + shapely.area(found)[f] - shared
    return _pairs(t, f, shared, union)


def match_by_overlap(pairs: Pairs, truths: int, found: int, iou: float) -> NDArray[np.int64]:
    """Match one to one so that the matched boxes share the largest area in all.

    This is the rule of DeepForest's evaluation, and of the NeonTreeEvaluation benchmark before it
    (linear sum assignment); scores play no part. Only pairs whose IoU is greater than `iou` count
    as matches in the end.

    Parameters
    ----------
    pairs
        What overlaps.
    truths, found
        Numbers of labelled boxes and of predictions.
    iou
        IoU that a match must exceed.

    Returns
    -------
    NDArray
        int64 (found,): the index of the labelled box, or -1.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    matched = np.full(found, -1, np.int64)
    if len(pairs.truth) == 0:
        return matched
    side = truths + found
    graph = csr_array(
        (np.ones(len(pairs.truth)), (pairs.truth, truths + pairs.found)), shape=(side, side)
    )
    # Boxes that no chain of overlaps connects are matched independently of each other.
    count, component = connected_components(graph, directed=False)
    batch = np.cumsum(np.bincount(component[:truths], minlength=count)) // _BATCH
    batch_of_pair = batch[component[pairs.truth]]
    order = np.argsort(batch_of_pair, kind="stable")
    cuts = np.flatnonzero(np.diff(batch_of_pair[order])) + 1
    for part in np.split(order, cuts):
        t, f = _largest_shared_area(pairs.truth[part], pairs.found[part], pairs.shared[part])
        matched[f] = t
    good = np.zeros(found, bool)
    chosen = matched[pairs.found] == pairs.truth
    good[pairs.found[chosen & (pairs.iou > iou)]] = True
    return np.where(good, matched, -1)


def match_by_score(pairs: Pairs, scores: NDArray[np.floating], iou: float) -> NDArray[np.int64]:
    """Match one to one by falling score, each prediction to the free box that it overlaps most.

    COCO's rule: the IoU must be at least `iou`. Of equal scores the first comes first, of equally
    overlapped boxes the first is taken.

    Returns
    -------
    NDArray
        int64 (N,): for each score, the index of the labelled box, or -1.
    """
    scores = np.asarray(scores)
    matched = np.full(len(scores), -1, np.int64)
    pairs = pairs.where(pairs.iou >= iou)
    rank = np.empty(len(scores), np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    taken: set[int] = set()
    for i in np.lexsort((pairs.truth, -pairs.iou, rank[pairs.found])):
        t, f = int(pairs.truth[i]), int(pairs.found[i])
        if matched[f] < 0 and t not in taken:
            matched[f] = t
            taken.add(t)
    return matched


def match_boxes(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    truth: NDArray[np.floating],
    iou: float = 0.4,
) -> NDArray[np.int64]:
    """Match predictions on one image to its labelled boxes one to one, as `match_by_score` does.

    Parameters
    ----------
    boxes, scores
        Predictions, (N, 4) and (N,).
    truth
        Labelled boxes (M, 4).
    iou
        Least overlap of a match, greater than 0.

    Returns
    -------
    NDArray
        int64 (N,): the index of the labelled box, or -1.
    """
    return match_by_score(overlapping_boxes(truth, boxes), scores, iou)


def _rectangles(boxes: NDArray[np.float64]) -> NDArray[np.object_]:
    return shapely.box(boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3])


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _pairs(
    t: NDArray[np.integer],
    f: NDArray[np.integer],
    shared: NDArray[np.float64],
    union: NDArray[np.float64],
) -> Pairs:
    iou = np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)
    return Pairs(t.astype(np.int64), f.astype(np.int64), shared, iou).where(shared > 0)


def _largest_shared_area(
    truth: NDArray[np.int64], found: NDArray[np.int64], shared: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The matching of these pairs with the largest sum of `shared`."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    truths, row = np.unique(truth, return_inverse=True)
    founds, column = np.unique(found, return_inverse=True)
    # The solver wants every row matched, so each gets a column of its own for "not at all". The
    # same amount on every entry changes no comparison, and keeps those columns from being zeros,
    # which a sparse array does not have.
    rows = np.arange(len(truths))
    amount = shared.max()
    weights = csr_array(
        (
            np.concatenate([shared + amount, np.full(len(truths), amount)]),
            (np.concatenate([row, rows]), np.concatenate([column, len(founds) + rows])),
        ),
        shape=(len(truths), len(founds) + len(truths)),
    )
    row, column = min_weight_full_bipartite_matching(weights, maximize=True)
    real = column < len(founds)
    return truths[row[real]], founds[column[real]]
