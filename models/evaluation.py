"""How well boxes agree with labelled ones: one-to-one matching, precision, recall, F1 and AP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BoxMetrics:
    """Agreement of predicted with labelled boxes at one IoU threshold.

    Parameters
    ----------
    precision, recall, f1
        Of all predictions given; nan where nothing was predicted or labelled.
    average_precision
        Area under the precision envelope over recall, every point (PASCAL VOC 2010 and later).
    predictions, truths, matches
        Counts.
    """

    precision: float
    recall: float
    f1: float
    average_precision: float
    predictions: int
    truths: int
    matches: int


def box_iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of each box of `a` (N, 4) with each of `b` (M, 4), as (N, M)."""
    a = np.asarray(a, np.float64).reshape(-1, 4)
    b = np.asarray(b, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def match_boxes(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    truth: NDArray[np.floating],
    iou: float = 0.4,
) -> NDArray[np.int64]:
    """Match predictions to labelled boxes one to one.

    By falling score, each prediction takes the free labelled box that it overlaps most, if their
    IoU is at least `iou`: COCO's rule.

    Parameters
    ----------
    boxes, scores
        Predictions, (N, 4) and (N,).
    truth
        Labelled boxes (M, 4).
    iou
        Least overlap of a match.

    Returns
    -------
    NDArray
        int64 (N,): the index of the labelled box, or -1.
    """
    matched = np.full(len(boxes), -1, np.int64)
    if len(boxes) == 0 or len(truth) == 0:
        return matched
    overlap = box_iou(boxes, truth)
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        j = int(np.argmax(overlap[i]))
        if overlap[i, j] >= iou:
            matched[i] = j
            overlap[:, j] = -1
    return matched


def average_precision(
    correct: NDArray[np.bool_], scores: NDArray[np.floating], truths: int
) -> float:
    """Area under the monotone precision envelope over recall (nan without labelled boxes)."""
    if truths == 0:
        return float("nan")
    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.cumsum(correct[order])
    recall = np.concatenate([[0.0], hits / truths])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def box_metrics(
    boxes: Sequence[NDArray[np.floating]],
    scores: Sequence[NDArray[np.floating]],
    truths: Sequence[NDArray[np.floating]],
    *,
    iou: float = 0.4,
    score_threshold: float = 0.0,
) -> BoxMetrics:
    """Score predictions on several images.

    Parameters
    ----------
    boxes, scores, truths
        One array for each image.
    iou
        Least overlap of a match.
    score_threshold
        Precision, recall and F1 count predictions from here on; AP uses all that are given, so give
        them from a low threshold on.

    Returns
    -------
    BoxMetrics
    """
    correct = [
        match_boxes(b, s, t, iou) >= 0 for b, s, t in zip(boxes, scores, truths, strict=True)
    ]
    hit = np.concatenate([np.zeros(0, bool), *correct])
    score = np.concatenate([np.zeros(0), *(np.asarray(s) for s in scores)])
    total = sum(len(t) for t in truths)
    # Matched greedily by falling score: matches above a threshold don't depend on those below.
    kept = score >= score_threshold
    matches, predictions = int(hit[kept].sum()), int(kept.sum())
    precision = matches / predictions if predictions else float("nan")
    recall = matches / total if total else float("nan")
    f1 = 2 * matches / (predictions + total) if predictions + total else float("nan")
    ap = average_precision(hit, score, total)
    return BoxMetrics(precision, recall, f1, ap, predictions, total, matches)
