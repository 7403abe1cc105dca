"""Detect on a whole image in memory, for evaluation; the pipeline streams rasters instead."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchvision.ops import batched_nms

from .protocol import Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .protocol import Detector


def detect_tiled(
    detector: Detector,
    pixels: NDArray[np.uint8],
    *,
    size: int = 400,
    overlap: int = 100,
    merge_iou: float = 0.5,
) -> Detections:
    """Detect through overlapping windows.

    A box counts where its centre lies in the window's core (up to half of each overlap); boxes that
    two cores still both report are merged by greedy NMS, per class.

    Parameters
    ----------
    detector
        The model.
    pixels
        uint8 (3, H, W).
    size, overlap
        Side of the windows and pixels shared by neighbours; edge windows are shifted inwards.
    merge_iou
        Overlap from which the lower of two boxes is dropped.
    """
    height, width = pixels.shape[1:]
    parts = []
    for y, y_low, y_high in _spans(height, size, overlap):
        for x, x_low, x_high in _spans(width, size, overlap):
            window = np.ascontiguousarray(pixels[None, :, y : y + size, x : x + size])
            found = detector.detect(window)[0]
            boxes = found.boxes + np.array([x, y, x, y], np.float32)
            cx, cy = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
            core = (cx >= x_low) & (cx < x_high) & (cy >= y_low) & (cy < y_high)
            parts.append((boxes[core], found.labels[core], found.scores[core]))
    boxes, labels, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    keep = batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), merge_iou
    ).numpy()
    return Detections(boxes[keep], labels[keep], scores[keep])


def _spans(length: int, size: int, overlap: int) -> list[tuple[int, float, float]]:
    """Return (start, core from, core to) of each window along one axis."""
    if length <= size:
        return [(0, -np.inf, np.inf)]
    starts = [*range(0, length - size, size - overlap), length - size]
    middles = [(a + size + b) / 2 for a, b in pairwise(starts)]
    return list(zip(starts, [-np.inf, *middles], [*middles, np.inf], strict=True))
