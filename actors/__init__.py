"""Ray shells around the pipeline's stages; only `pipeline.driver` uses them.

Names are looked up on first use: each worker comes by here on its way to its own actor, and needs
nothing of the driver's or the coordinator's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..catalog.lazy import lazy_names

if TYPE_CHECKING:
    from .connection import connect
    from .seat import GONE, Seat, first_line, told, wait_for
    from .seats import Seats

__all__ = ["GONE", "Seat", "Seats", "connect", "first_line", "told", "wait_for"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".connection": ("connect",),
        ".seat": ("GONE", "Seat", "first_line", "told", "wait_for"),
        ".seats": ("Seats",),
    },
)
