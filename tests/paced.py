"""A detector and a crop model that take their time until a file is there, as if they had part of a GPU."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from geosweep.models import CropModel
from tests.cropmodels import tiny
from tests.detectors import PaintDetector

VARIABLE = "GEOSWEEP_TEST_HURRY"
"""Names the file. Where it isn't set, nobody waits."""
WINDOW_S, CROP_S, BATCH_S = 0.5, 0.2, 1.0
"""Seconds for a window in the detector, a crop in the cropper, a batch of them in the classifier."""


def dawdle(seconds: float) -> None:
    """Wait, unless all is to be quick."""
    if VARIABLE in os.environ and not Path(os.environ[VARIABLE]).exists():
        time.sleep(seconds)


class PacedDetector(PaintDetector):
    """Finds patches no faster than told; says that its device is none of ours."""

    name = "tests/paced"
    device = "pretended"

    def _one(self, image):
        dawdle(WINDOW_S)
        return super()._one(image)


class PacedNetwork(nn.Module):
    """Another network, no faster than told."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        dawdle(BATCH_S)
        return self.inner(x)


def detector() -> PacedDetector:
    return PacedDetector()


def crop_model() -> CropModel:
    inner = tiny()
    usual = inner.get_transform()

    def transform(crop: Any) -> Any:
        dawdle(CROP_S)
        return usual(crop)

    assert inner.model is not None
    return CropModel(
        model=PacedNetwork(inner.model),
        label_dict=inner.label_dict,
        resize=inner.resize,
        crop_transform=transform,
    )
