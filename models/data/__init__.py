"""Labelled images: reading, checking, cutting and serving them for training.

Names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annotations import check_annotations, read_annotations
    from .augment import Augment
    from .config import AugmentConfig, DataConfig, WindowConfig
    from .cropfiles import write_crops
    from .cropsets import CropDataset, CropFolder
    from .datamodule import DetectionDataModule
    from .dataset import WindowDataset
    from .frame import annotation_frame
    from .georeference import boxes_to_map, map_to_pixels
    from .problems import AnnotationProblem
    from .randomcrops import RandomCropDataset
    from .showbatch import show_batch
    from .split import split_raster
    from .splitting import split_annotations
    from .write import write_annotations

__all__ = [
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
]

_LAZY = {
    "CropDataset": ".cropsets",
    "CropFolder": ".cropsets",
    "write_crops": ".cropfiles",
    "AnnotationProblem": ".problems",
    "annotation_frame": ".frame",
    "boxes_to_map": ".georeference",
    "check_annotations": ".annotations",
    "map_to_pixels": ".georeference",
    "read_annotations": ".annotations",
    "split_raster": ".split",
    "write_annotations": ".write",
    "AugmentConfig": ".config",
    "DataConfig": ".config",
    "DetectionDataModule": ".datamodule",
    "RandomCropDataset": ".randomcrops",
    "WindowConfig": ".config",
    "WindowDataset": ".dataset",
    "Augment": ".augment",
    "show_batch": ".showbatch",
    "split_annotations": ".splitting",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
