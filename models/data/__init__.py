"""Labelled images: reading, checking, cutting and serving them for training.

Names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annotations import check_annotations, read_annotations
    from .frame import annotation_frame
    from .georeference import boxes_to_map, map_to_pixels
    from .problems import AnnotationProblem

__all__ = [
    "AnnotationProblem",
    "annotation_frame",
    "boxes_to_map",
    "check_annotations",
    "map_to_pixels",
    "read_annotations",
]

_LAZY = {
    "AnnotationProblem": ".problems",
    "annotation_frame": ".frame",
    "boxes_to_map": ".georeference",
    "check_annotations": ".annotations",
    "map_to_pixels": ".georeference",
    "read_annotations": ".annotations",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
