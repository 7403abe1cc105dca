"""Training of detectors, crop models and tile filters with Lightning.

Names are loaded on first use: importing this package does not import torch or lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._tilevalidation import TileValidation, validate_tilefilter
    from .anchors import AnchorSuggestion, suggest_anchors
    from .config import OptimizerConfig, TrainerConfig
    from .cropconfig import CropTraining
    from .cropmodel import TrainedCropModel, train_cropmodel
    from .detector import TrainedDetector, draw_batch, train_detector
    from .detectorconfig import DetectorTraining
    from .module import DetectorModule
    from .raytrain import train_detector_on_ray
    from .tileconfig import TileFilterTraining
    from .tilefilter import TrainedTileFilter, train_tilefilter
    from .trainer import make_trainer

__all__ = [
    "AnchorSuggestion",
    "CropTraining",
    "DetectorModule",
    "DetectorTraining",
    "OptimizerConfig",
    "TileFilterTraining",
    "TileValidation",
    "TrainedCropModel",
    "TrainedDetector",
    "TrainedTileFilter",
    "TrainerConfig",
    "draw_batch",
    "make_trainer",
    "suggest_anchors",
    "train_cropmodel",
    "train_detector",
    "train_detector_on_ray",
    "train_tilefilter",
    "validate_tilefilter",
]

_LAZY = {
    "AnchorSuggestion": ".anchors",
    "CropTraining": ".cropconfig",
    "DetectorModule": ".module",
    "DetectorTraining": ".detectorconfig",
    "OptimizerConfig": ".config",
    "TileFilterTraining": ".tileconfig",
    "TileValidation": "._tilevalidation",
    "TrainedCropModel": ".cropmodel",
    "TrainedDetector": ".detector",
    "TrainedTileFilter": ".tilefilter",
    "TrainerConfig": ".config",
    "draw_batch": ".detector",
    "make_trainer": ".trainer",
    "suggest_anchors": ".anchors",
    "train_cropmodel": ".cropmodel",
    "train_detector": ".detector",
    "train_detector_on_ray": ".raytrain",
    "train_tilefilter": ".tilefilter",
    "validate_tilefilter": "._tilevalidation",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
