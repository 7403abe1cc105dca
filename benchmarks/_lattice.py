"""A detector that finds the same four boxes in each window at once, for `smoke.py`."""

from __future__ import annotations

import numpy as np

from geosweep.models import Detections

CORNERS = np.array([[60, 60], [300, 60], [60, 300], [300, 300]], np.float32)


class Lattice:
    """What it allocates is nothing beside a window."""

    name = "benchmarks/lattice"
    version = "1"
    labels = ("Tree",)
    device = "cpu"

    def detect(self, images: np.ndarray) -> list[Detections]:
        """Four boxes for each window of (N, 3, H, W)."""
        boxes = np.hstack([CORNERS, CORNERS + 20])
        found = Detections(boxes, np.zeros(4, np.int64), np.full(4, 0.9, np.float32))
        return [found] * len(images)


def lattice() -> Lattice:
    """The detector, as a job names it: ``benchmarks._lattice:lattice``."""
    return Lattice()
