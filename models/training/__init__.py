"""Training of detectors, crop models and tile filters with Lightning.

Names are loaded on first use: importing this package does not import torch or lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...catalog.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "._tilevalidation": (
            "TileValidation",
            "validate_tilefilter",
        ),
        ".anchors": (
            "AnchorSuggestion",
            "suggest_anchors",
        ),
        ".config": (
            "OptimizerConfig",
            "TrainerConfig",
        ),
        ".cropconfig": ("CropTraining",),
        ".cropmodel": (
            "TrainedCropModel",
            "train_cropmodel",
        ),
        ".detector": (
            "TrainedDetector",
            "draw_batch",
            "train_detector",
        ),
        ".detectorconfig": ("DetectorTraining",),
        ".module": ("DetectorModule",),
        ".raytrain": ("train_detector_on_ray",),
        ".tileconfig": ("TileFilterTraining",),
        ".tilefilter": (
            "TrainedTileFilter",
            "train_tilefilter",
        ),
        ".trainer": ("make_trainer",),
    },
)
