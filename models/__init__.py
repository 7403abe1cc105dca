"""Detectors, crop models, and where they come from.

Names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..catalog.lazy import lazy_names
from .info import ModelInfo
from .loading import (
    list_models,
    load_bare_crop_model,
    load_crop_model,
    load_detector,
    model_info,
)
from .protocol import Detections, Detector, TileScorer

if TYPE_CHECKING:
    from ._cropmodel import BareCropModel
    from ._threads import available_cores
    from .backends import export_detector
    from .cropmodel import CropModel
    from .crops import crop_bounds
    from .data import (
        AnnotationProblem,
        Augment,
        AugmentConfig,
        CropDataset,
        CropFolder,
        DataConfig,
        DetectionDataModule,
        RandomCropDataset,
        WindowConfig,
        WindowDataset,
        annotation_frame,
        boxes_to_map,
        check_annotations,
        map_to_pixels,
        read_annotations,
        show_batch,
        split_annotations,
        split_raster,
        write_annotations,
        write_crops,
    )
    from .evaluation import Evaluation, evaluate
    from .tilefilter import TileFilter, load_tile_filter
    from .tilethreshold import TileThreshold, TileVerdict, choose_threshold, judge_windows
    from .training import (
        AnchorSuggestion,
        DetectorModule,
        DetectorTraining,
        OptimizerConfig,
        TileFilterTraining,
        TrainedDetector,
        TrainedTileFilter,
        TrainerConfig,
        make_trainer,
        suggest_anchors,
        train_cropmodel,
        train_detector,
        train_detector_on_ray,
        train_tilefilter,
        validate_tilefilter,
    )

__all__ = [
    "AnchorSuggestion",
    "AnnotationProblem",
    "Augment",
    "AugmentConfig",
    "BareCropModel",
    "CropDataset",
    "CropFolder",
    "CropModel",
    "DataConfig",
    "DetectionDataModule",
    "Detections",
    "Detector",
    "DetectorModule",
    "DetectorTraining",
    "Evaluation",
    "ModelInfo",
    "OptimizerConfig",
    "RandomCropDataset",
    "TileFilter",
    "TileFilterTraining",
    "TileScorer",
    "TileThreshold",
    "TileVerdict",
    "TrainedDetector",
    "TrainedTileFilter",
    "TrainerConfig",
    "WindowConfig",
    "WindowDataset",
    "annotation_frame",
    "available_cores",
    "boxes_to_map",
    "check_annotations",
    "choose_threshold",
    "crop_bounds",
    "evaluate",
    "export_detector",
    "judge_windows",
    "list_models",
    "load_bare_crop_model",
    "load_crop_model",
    "load_detector",
    "load_tile_filter",
    "make_trainer",
    "map_to_pixels",
    "model_info",
    "read_annotations",
    "show_batch",
    "split_annotations",
    "split_raster",
    "suggest_anchors",
    "train_cropmodel",
    "train_detector",
    "train_detector_on_ray",
    "train_tilefilter",
    "validate_tilefilter",
    "write_annotations",
    "write_crops",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "._cropmodel": ("BareCropModel",),
        "._threads": ("available_cores",),
        ".backends": ("export_detector",),
        ".cropmodel": ("CropModel",),
        ".crops": ("crop_bounds",),
        ".data": (
            "AnnotationProblem",
            "Augment",
            "AugmentConfig",
            "CropDataset",
            "CropFolder",
            "DataConfig",
            "DetectionDataModule",
            "RandomCropDataset",
            "WindowConfig",
            "WindowDataset",
            "annotation_frame",
            "boxes_to_map",
            "check_annotations",
            "map_to_pixels",
            "read_annotations",
            "show_batch",
            "split_annotations",
            "split_raster",
            "write_annotations",
            "write_crops",
        ),
        ".evaluation": (
            "Evaluation",
            "evaluate",
        ),
        ".tilefilter": (
            "TileFilter",
            "TileScorer",
            "load_tile_filter",
        ),
        ".tilethreshold": (
            "TileThreshold",
            "TileVerdict",
            "choose_threshold",
            "judge_windows",
        ),
        ".training": (
            "AnchorSuggestion",
            "DetectorModule",
            "DetectorTraining",
            "OptimizerConfig",
            "TileFilterTraining",
            "TrainedDetector",
            "TrainedTileFilter",
            "TrainerConfig",
            "make_trainer",
            "suggest_anchors",
            "train_cropmodel",
            "train_detector",
            "train_detector_on_ray",
            "train_tilefilter",
            "validate_tilefilter",
        ),
    },
)
