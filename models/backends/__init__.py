"""Inference engines other than plain torch, behind the same protocol.

Importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dense import accelerate
    from .engines import BACKENDS, Backend, check_backend
    from .export import export_detector

__all__ = ["BACKENDS", "Backend", "accelerate", "check_backend", "export_detector"]

_LAZY = {
    "accelerate": ".dense",
    "BACKENDS": ".engines",
    "Backend": ".engines",
    "check_backend": ".engines",
    "export_detector": ".export",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
