"""Models that run out of memory with more than so many windows: they raise what torch would."""

from __future__ import annotations

import numpy as np
import torch

from tests.detectors import POISON, PaintDetector
from tests.tilefilters import PaintFilter


class HungryDetector(PaintDetector):
    """Finds paint in at most `room` windows at a time; in none at all that hold `POISON`.

    Attributes
    ----------
    tried
        Windows that each call was given.
    """

    name = "tests/hungry"

    def __init__(self, room: int) -> None:
        self._room = room
        self.tried: list[int] = []

    def detect(self, images):
        self.tried.append(len(images))
        if len(images) > self._room or any(_holds_poison(image) for image in images):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().detect(images)


class HungryFilter(PaintFilter):
    """Judges at most `room` windows at a time."""

    def __init__(self, room: int) -> None:
        self._room = room

    def scores(self, images):
        if len(images) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().scores(images)


def _holds_poison(image) -> bool:
    return (np.asarray(image) == np.array(POISON)[:, None, None]).all(axis=0).any()


def three() -> HungryDetector:
    """With room for three windows."""
    return HungryDetector(3)
