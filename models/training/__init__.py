"""Training of detectors, crop models and tile filters with Lightning.

Names are loaded on first use: importing this package does not import torch or lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainerConfig
    from .trainer import make_trainer

__all__ = ["TrainerConfig", "make_trainer"]

_LAZY = {"TrainerConfig": ".config", "make_trainer": ".trainer"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
