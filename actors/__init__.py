"""Ray shells around the pipeline's stages; only `pipeline.driver` uses them."""

from .coordinator import Coordinator
from .pool import cause_of

__all__ = ["Coordinator", "cause_of"]
