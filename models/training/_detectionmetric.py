"""Validation figures of a detector, summed over batches and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ..evaluation import average_precision, match_boxes

if TYPE_CHECKING:
    from torch import Tensor

IOUS = (0.4, 0.5)
_COLUMNS = 2 + len(IOUS)


class DetectionMetric(Metric):
    """Average precision at IoU 0.4 and 0.5, and precision, recall and F1 at IoU 0.4.

    Boxes are matched one to one within their image and label. With several processes Lightning deals
    images out in equal numbers, so that a few may count twice.

    Parameters
    ----------
    num_classes
        Number of labels; average precision is the mean over those that occur.
    score_threshold
        Where precision, recall and F1 are taken.
    """

    full_state_update = False
    found: list[Tensor]
    truths: Tensor

    def __init__(self, num_classes: int, score_threshold: float) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        # Of each box its score, its class, and whether it is matched at each IoU.
        self.add_state("found", [], dist_reduce_fx="cat")
        self.add_state("truths", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, outputs: list[dict[str, Tensor]], targets: list[dict[str, Any]]) -> None:
        """Add a batch: what torchvision's networks return, and what they should have."""
        for output, target in zip(outputs, targets, strict=True):
            boxes = output["boxes"].float().cpu().numpy()
            scores = output["scores"].float().cpu().numpy()
            labels = output["labels"].cpu().numpy()
            truth, wanted = target["boxes"].cpu().numpy(), target["labels"].cpu().numpy()
            rows = np.zeros((len(scores), _COLUMNS), np.float32)
            rows[:, 0], rows[:, 1] = scores, labels
            for label in np.unique(labels):
                mine = labels == label
                for i, iou in enumerate(IOUS):
                    matched = match_boxes(boxes[mine], scores[mine], truth[wanted == label], iou)
                    rows[mine, 2 + i] = matched >= 0
            self.found.append(torch.from_numpy(rows).to(self.device))
            count = np.bincount(wanted, minlength=len(self.truths)).astype(np.float32)
            self.truths += torch.from_numpy(count).to(self.device)

    def compute(self) -> dict[str, float]:
        """Return ``ap40``, ``ap50``, ``precision``, ``recall``, ``f1`` and ``best_score``.

        ``best_score`` is the score threshold with the best F1.
        """
        rows = np.zeros((0, _COLUMNS), np.float32)
        if len(self.found):
            rows = dim_zero_cat(self.found).cpu().numpy()
        truths = self.truths.cpu().numpy()
        result = {
            f"ap{round(100 * iou)}": _mean_precision(rows, truths, 2 + i)
            for i, iou in enumerate(IOUS)
        }
        total = float(truths.sum())
        rows = rows[np.argsort(-rows[:, 0], kind="stable")]
        hits = np.cumsum(rows[:, 2])
        f1 = 2 * hits / (np.arange(1, len(rows) + 1) + total)
        # Boxes of one score are reported together or not at all.
        ends = np.flatnonzero(np.append(np.diff(rows[:, 0]) != 0, True)) if len(rows) else []
        best = ends[int(np.argmax(f1[ends]))] if len(ends) else None
        kept = int((rows[:, 0] >= self.score_threshold).sum())
        matches = float(hits[kept - 1]) if kept else 0.0
        return {
            **result,
            "precision": matches / kept if kept else 0.0,
            "recall": matches / total if total else 0.0,
            "f1": 2 * matches / (kept + total) if kept + total else 0.0,
            "best_score": self.score_threshold if best is None else float(rows[best, 0]),
        }


def _mean_precision(rows: np.ndarray, truths: np.ndarray, column: int) -> float:
    each = [
        average_precision(rows[of, column] > 0, rows[of, 0], int(count))
        for label, count in enumerate(truths)
        if count
        for of in [rows[:, 1] == label]
    ]
    return float(np.mean(each)) if each else 0.0
