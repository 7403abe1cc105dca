"""A detector whose answers are known: it finds painted rectangles, exactly.

It is a real `Detector`, loaded through ``module:factory`` like any user's own, so that pipeline tests
can say what must come out to the pixel.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from geosweep.catalog.errors import ModelError
from geosweep.models import Detections

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
POISON = (0, 255, 0)
GLUT = (0, 255, 255)

DEATHS_POINTER = Path(tempfile.gettempdir()) / "geosweep-test-deaths"
"""Names the file in which deaths are counted: actors don't have the test's environment."""
HURRY = "GEOSWEEP_TESTS_HURRY"
"""Variable of the environment with which the slow detector takes no time."""


class PaintDetector:
    """Boxes of connected red and blue patches; a score that depends on the patch's size alone."""

    name = "tests/paint"
    version = "1"
    labels = tuple(COLOURS)
    device = "cpu"

    def detect(self, images):
        return [self._one(np.asarray(image)) for image in images]

    def _one(self, image):
        boxes, labels, scores = [], [], []
        for label, colour in enumerate(COLOURS.values()):
            hit = (image == np.array(colour, image.dtype)[:, None, None]).all(axis=0)
            for rows, columns in ndimage.find_objects(ndimage.label(hit)[0]):
                boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                labels.append(label)
                area = (columns.stop - columns.start) * (rows.stop - rows.start)
                scores.append(0.5 + 0.4 * min(area / 40_000, 1.0))
        order = np.argsort(-np.array(scores), kind="stable") if scores else np.zeros(0, int)
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4)[order],
            np.array(labels, np.int64)[order],
            np.array(scores, np.float32)[order],
        )


class PoisonedDetector(PaintDetector):
    """Ends its process on a poisoned window: always, or until the file it leaves says enough."""

    name = "tests/poisoned"

    def __init__(self, deaths: int | None = None):
        self._deaths = deaths

    def _one(self, image):
        if (image == np.array(POISON, image.dtype)[:, None, None]).all(axis=0).any():
            log = Path(DEATHS_POINTER.read_text())
            done = len(log.read_text()) if log.exists() else 0
            if self._deaths is None or done < self._deaths:
                with log.open("a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)
        return super()._one(image)


class SlowDetector(PaintDetector):
    """Takes its time, so that a test can interrupt."""

    name = "tests/slow"

    def _one(self, image):
        time.sleep(0 if os.environ.get(HURRY) else 0.15)
        return super()._one(image)


def paint():
    return PaintDetector()


def poisoned():
    return PoisonedDetector()


def broken_in_actors():
    """Loads in the driver, which looks the labels up, but not in the actors."""
    if "ray" in sys.modules and sys.modules["ray"].get_runtime_context().get_actor_id():
        raise ModelError("The weights are gone; fetch them again.")
    return PaintDetector()


def poisoned_twice():
    return PoisonedDetector(deaths=2)


def slow():
    return SlowDetector()


def paint_patches(data: np.ndarray, boxes, colour="red") -> np.ndarray:
    """Paint rectangles (xmin, ymin, xmax, ymax) into a (3, H, W) image."""
    colours = COLOURS | {"poison": POISON, "glut": GLUT}
    for x0, y0, x1, y1 in boxes:
        data[:, y0:y1, x0:x1] = np.array(colours[colour], np.uint8)[:, None, None]
    return data


def grey(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A background that the detector never takes for a patch."""
    rng = np.random.default_rng(seed)
    return rng.integers(60, 190, (3, height, width)).astype(np.uint8)
