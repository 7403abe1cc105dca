"""Numbers from matchings: precision, recall, F1, average precision, and COCO's mAP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..catalog.errors import AnnotationError
from ._eval_matching import match_boxes

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


def ratio(part: float, whole: float) -> float:
    """`part` / `whole`; nan of nothing."""
    return part / whole if whole else float("nan")


def precision_recall(
    correct: NDArray[np.bool_], scores: NDArray[np.floating], truths: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Scores, and precision and recall of all predictions from that score on, by falling score.

    Parameters
    ----------
    correct, scores
        Of each prediction, (N,).
    truths
        How many labelled boxes there are.

    Returns
    -------
    tuple
        Scores, precision and recall, float64 (N,) each; recall is nan without labelled boxes.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.cumsum(correct[order], dtype=np.float64)
    recall = hits / truths if truths else np.full(len(hits), np.nan)
    precision = hits / np.arange(1, len(hits) + 1)
    return np.asarray(scores, np.float64)[order], precision, recall


def average_precision(
    correct: NDArray[np.bool_], scores: NDArray[np.floating], truths: int
) -> float:
    """Area under the monotone precision envelope over recall (nan without labelled boxes)."""
    if truths == 0:
        return float("nan")
    _, precision, recall = precision_recall(correct, scores, truths)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


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
    return BoxMetrics(
        precision=ratio(matches, predictions),
        recall=ratio(matches, total),
        f1=ratio(2 * matches, predictions + total),
        average_precision=average_precision(hit, score, total),
        predictions=predictions,
        truths=total,
        matches=matches,
    )


@dataclass(frozen=True, slots=True)
class CocoSide:
    """Labelled boxes or predictions, as COCO's evaluation takes them.

    Parameters
    ----------
    group
        int64 (N,): which boxes may match: those of one image, or of one cluster in it.
    boxes
        float64 (N, 4).
    classes
        int64 (N,).
    scores
        (N,), of predictions.
    """

    group: NDArray[np.int64]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.floating] | None = None


def coco_scores(truth: CocoSide, found: CocoSide) -> dict[str, float]:
    """COCO's mean average precision and recall, over classes and IoU 0.50, 0.55 … 0.95.

    Computed by torchmetrics and faster-coco-eval. COCO looks at the best 100 predictions of an
    image and no further, which on a wooded tile is a fifth of the crowns: all of them count here.

    Returns
    -------
    dict
        ``map`` (IoU 0.50 to 0.95), ``map_50``, ``map_75``, and ``mar``, the mean recall; nan where
        nothing is labelled.

    Raises
    ------
    AnnotationError
        If torchmetrics or faster-coco-eval is not installed.
    """
    try:
        import faster_coco_eval  # noqa: F401
        import torch
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError as error:
        raise AnnotationError(
            f"COCO's mean average precision needs the package {error.name}: install "
            "geosweep[train], or leave it out with --no-coco (coco=False in Python)."
        ) from error
    groups = np.union1d(truth.group, found.group)
    most = int(np.max(np.bincount(np.searchsorted(groups, found.group)), initial=1))
    metric = MeanAveragePrecision(
        backend="faster_coco_eval", max_detection_thresholds=[1, 10, max(most, 11)]
    )
    metric.warn_on_many_detections = False
    for t, f in zip(_by_group(truth, groups), _by_group(found, groups), strict=True):
        assert found.scores is not None
        metric.update(
            [
                {
                    # float64 would be cut to float32 anyway, which is too coarse for map
                    # coordinates of many metres: what counts is the place within the group.
                    "boxes": torch.from_numpy(found.boxes[f] - _origin(truth, found, t, f)).float(),
                    "scores": torch.from_numpy(found.scores[f].astype(np.float32)),
                    "labels": torch.from_numpy(found.classes[f]),
                }
            ],
            [
                {
                    "boxes": torch.from_numpy(truth.boxes[t] - _origin(truth, found, t, f)).float(),
                    "labels": torch.from_numpy(truth.classes[t]),
                }
            ],
        )
    values = metric.compute() if len(groups) else {}
    names = {"map": "map", "map_50": "map_50", "map_75": "map_75", "mar": f"mar_{max(most, 11)}"}
    # COCO writes -1 where there is nothing to average.
    found_values = {name: float(values.get(key, -1.0)) for name, key in names.items()}
    return {name: value if value >= 0 else float("nan") for name, value in found_values.items()}


def _by_group(side: CocoSide, groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(side.group, kind="stable")
    cuts = np.searchsorted(side.group[order], groups[1:])
    return np.split(order, cuts)


def _origin(
    truth: CocoSide, found: CocoSide, t: NDArray[np.int64], f: NDArray[np.int64]
) -> NDArray[np.float64]:
    low = np.concatenate([truth.boxes[t, :2], found.boxes[f, :2]]).min(axis=0)
    return np.tile(low, 2)
