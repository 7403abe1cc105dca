"""Ray shells around the pipeline's stages; only `pipeline.driver` uses them."""

from .coordinator import OPTIONS as COORDINATOR_OPTIONS
from .coordinator import Coordinator
from .pool import cause_of

__all__ = ["COORDINATOR_OPTIONS", "Coordinator", "cause_of"]
