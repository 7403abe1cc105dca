"""Tile filters whose answers are known, loaded through ``module:factory``."""

from __future__ import annotations

import numpy as np

from tests.detectors import COLOURS


class PaintFilter:
    """Knows red and no other paint; where red and blue meet it contradicts itself.

    No paint: empty. Red: seen. Blue: under every threshold. Both: empty, and red is seen.
    """

    name = "tests/paint-filter"
    version = "1"
    labels = ("red", "blue", "empty")
    empty_threshold = 0.9
    device = "cpu"

    def scores(self, images):
        return np.array([self._one(np.asarray(image)) for image in images], np.float32)

    def _one(self, image):
        red, blue = (
            (image == np.array(colour, image.dtype)[:, None, None]).all(axis=0).any()
            for colour in COLOURS.values()
        )
        return (0.9 if red else 0.1, 0.1, 0.95 if red == blue else 0.2)


class WaryFilter(PaintFilter):
    """The same, but sure of nothing by its own threshold."""

    empty_threshold = 1.0


class ShortFilter(PaintFilter):
    """Gives a row too few."""

    def scores(self, images):
        return super().scores(images)[1:]


def paint():
    return PaintFilter()


def wary():
    return WaryFilter()


def short():
    return ShortFilter()
