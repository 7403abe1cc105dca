"""Thresholds of detectors that exist already; without torch, which a user's own may not need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .protocol import Detections

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from .protocol import Detector


@runtime_checkable
class Adjustable(Protocol):
    """A detector that applies thresholds itself."""

    def with_thresholds(self, score: float | None, nms: float | None) -> Detector:
        """Return a detector like it with other thresholds; None keeps one."""
        ...


class ScoreFilter:
    """A user's detector, less what scores below a threshold.

    Parameters
    ----------
    detector
        Any `Detector`.
    threshold
        Least score.
    """

    def __init__(self, detector: Detector, threshold: float) -> None:
        self._detector = detector
        self._threshold = threshold
        self.name, self.version = detector.name, detector.version
        self.labels, self.device = detector.labels, detector.device

    def detect(self, images: NDArray[np.uint8] | NDArray[np.float32] | Tensor) -> list[Detections]:
        """Detect objects in a batch (see `Detector.detect`)."""
        kept = []
        for found in self._detector.detect(images):
            high = found.scores >= self._threshold
            kept.append(Detections(found.boxes[high], found.labels[high], found.scores[high]))
        return kept
