"""Ray shells around the pipeline's stages; only `pipeline.driver` uses them."""

from .connection import connect
from .coordinator import Coordinator
from .seat import GONE, Seat, first_line, told, wait_for
from .seats import Seats

__all__ = ["GONE", "Coordinator", "Seat", "Seats", "connect", "first_line", "told", "wait_for"]
