"""Models that run out of memory with more than so many windows: they raise what torch would."""

from __future__ import annotations

import numpy as np

from tests.detectors import GLUT, PaintDetector
from tests.tilefilters import PaintFilter


class HungryDetector(PaintDetector):
    """Finds paint in at most `room` windows at a time; in none at all that hold `GLUT`.

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
        if len(images) > self._room or any(holds(GLUT, image) for image in images):
            raise self._error()
        return super().detect(images)

    def _error(self) -> Exception:
        return out_of_memory()


class HungryFilter(PaintFilter):
    """Judges at most `room` windows at a time."""

    def __init__(self, room: int) -> None:
        self._room = room

    def scores(self, images):
        if len(images) > self._room:
            raise out_of_memory()
        return super().scores(images)


def holds(colour, image) -> bool:
    """Whether a pixel of an image (3, H, W) has a colour."""
    return (np.asarray(image) == np.array(colour)[:, None, None]).all(axis=0).any()


def out_of_memory() -> Exception:
    """What torch raises on a GPU."""
    import torch  # here, since a detector that does without it starts in a tenth of the time

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def three() -> HungryDetector:
    """With room for three windows."""
    return HungryDetector(3)


def none() -> HungryDetector:
    """With room for nothing."""
    return HungryDetector(0)
