"""A detector that waits as long as a GPU would work, for `benchmarks/scaling.py`."""

from __future__ import annotations

import random
import time

import numpy as np

from geosweep.models import Detections

UNIT_S = 0.04 / 32
"""Seconds for a window whose first band has the value 1; with value n it takes n times as long."""
JITTER = 0.25
"""Batches take this share less to this share more, at random, so that detectors don't march in step."""


class Sleeper:
    """As many boxes in a window as its second band says, after a wait that its first band asks for.

    Pixels say it since one set of actors then plays fast and slow GPUs, and dense and empty scenes.
    """

    name = "benchmarks/sleeper"
    version = "1"
    labels = ("Tree",)
    device = "pretended"

    def __init__(self) -> None:
        starts = np.arange(15, 395, 38)
        corners = np.stack(np.meshgrid(starts, starts), axis=-1).reshape(-1, 2).astype(np.float32)
        self._boxes = np.hstack([corners, corners + 20])

    def detect(self, images: np.ndarray) -> list[Detections]:
        """Wait for a batch of windows (N, C, H, W), and find what is asked for in each."""
        work = sum(int(image[0, 0, 0]) for image in images) * UNIT_S
        time.sleep(work * random.uniform(1 - JITTER, 1 + JITTER))
        return [self._found(int(image[1, 0, 0])) for image in images]

    def _found(self, count: int) -> Detections:
        evenly = np.linspace(0, len(self._boxes) - 1, count).astype(int)
        scores = np.full(count, 0.9, np.float32)
        return Detections(self._boxes[evenly], np.zeros(count, np.int64), scores)


def sleeper() -> Sleeper:
    """The detector, as a job names it: ``benchmarks._sleeper:sleeper``."""
    return Sleeper()
