"""Detectors, crop models, and where they come from.

Names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .info import ModelInfo
from .loading import list_models, load_crop_model, load_detector, model_info
from .protocol import Detections, Detector

if TYPE_CHECKING:
    from ._threads import available_cores
    from .cropmodel import CropModel
    from .crops import crop_bounds

__all__ = [
    "CropModel",
    "Detections",
    "Detector",
    "ModelInfo",
    "available_cores",
    "crop_bounds",
    "list_models",
    "load_crop_model",
    "load_detector",
    "model_info",
]

_LAZY = {
    "CropModel": ".cropmodel",
    "available_cores": "._threads",
    "crop_bounds": ".crops",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
