"""Labelled images: reading, checking, cutting and serving them for training.

Names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...catalog.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".annotations": (
            "check_annotations",
            "read_annotations",
        ),
        ".augment": ("Augment",),
        ".config": (
            "AugmentConfig",
            "DataConfig",
            "WindowConfig",
        ),
        ".cropfiles": ("write_crops",),
        ".cropsets": (
            "CropDataset",
            "CropFolder",
        ),
        ".datamodule": ("DetectionDataModule",),
        ".dataset": ("WindowDataset",),
        ".frame": ("annotation_frame",),
        ".georeference": (
            "boxes_to_map",
            "map_to_pixels",
        ),
        ".problems": ("AnnotationProblem",),
        ".randomcrops": ("RandomCropDataset",),
        ".showbatch": ("show_batch",),
        ".split": ("split_raster",),
        ".splitting": ("split_annotations",),
        ".write": ("write_annotations",),
    },
)
