"""Inference engines other than plain torch, behind the same protocol.

Importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...catalog.lazy import lazy_names

if TYPE_CHECKING:
    from .dense import accelerate
    from .engines import BACKENDS, Backend, check_backend
    from .export import export_detector

__all__ = ["BACKENDS", "Backend", "accelerate", "check_backend", "export_detector"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".dense": ("accelerate",),
        ".engines": (
            "BACKENDS",
            "Backend",
            "check_backend",
        ),
        ".export": ("export_detector",),
    },
)
