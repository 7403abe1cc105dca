"""Batches that become smaller when a model runs out of memory."""

from __future__ import annotations

import gc
import logging
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..catalog.errors import DeviceMemoryError, GeosweepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("geosweep")
R = TypeVar("R")

_SIGNS = ("can't allocate memory", "out of memory", "_ALLOC_FAILED", "Failed to allocate memory")
"""What torch's CPU allocator, CUDA, cuBLAS and cuDNN, and ONNX Runtime say where they have no error
of its own for it."""


@dataclass(frozen=True, slots=True)
class Halvings:
    """How often a model's batches were halved.

    Parameters
    ----------
    times
        In all processes together.
    batch_size
        The smallest that any of them went on with.
    """

    times: int
    batch_size: int

    def __add__(self, other: Halvings) -> Halvings:
        return Halvings(self.times + other.times, min(self.batch_size, other.batch_size))


class Halving:
    """Hands batches to a model whole until memory runs out, and from then on in smaller parts.

    Parameters
    ----------
    model
        For messages and the report, such as ``detector geosweep/tree``.
    items
        What a batch is of: ``windows`` or ``crops``.
    remedy
        What a user may do if one item is too many, as the end of a sentence.

    Notes
    -----
    The parts never grow again: what didn't fit once would fail over and over, and what runs beside a
    model on its GPU mostly stays there.
    """

    def __init__(self, model: str, items: str, remedy: str) -> None:
        self.model = model
        self._items, self._remedy = items, remedy
        self._most: int | None = None
        # A deque, since another thread may ask while a batch is being halved.
        self._untold: deque[Halvings] = deque()

    def run(self, work: Callable[[Any], R], batch: NDArray[Any] | Sequence[Any]) -> list[R]:
        """What `work` gives for the parts of a batch, in order; one part, even if it is empty.

        Raises
        ------
        DeviceMemoryError
            If memory runs out with a single item.
        """
        results: list[R] = []
        start = 0
        while start < len(batch) or not results:
            part = batch[start : start + (self._most or max(len(batch), 1))]
            try:
                results.append(work(part))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0][:200]
            else:
                start += len(part)
                continue
            # Out here the error is gone, and with it the frames that held on to tensors.
            self._halve(len(part), reason)
        return results

    def take(self) -> dict[str, Halvings]:
        """What has happened since the last call, by model; empty as a rule."""
        told: dict[str, Halvings] = {}
        while self._untold:
            told = add_halvings(told, {self.model: self._untold.popleft()})
        return told

    def _halve(self, size: int, reason: str) -> None:
        _release_memory()
        if size <= 1:
            raise DeviceMemoryError(
                f"The {self.model} ran out of memory even with one of its {self._items} at a time "
                f"({reason}); {self._remedy}."
            )
        self._most = size // 2
        self._untold.append(Halvings(1, self._most))
        log.warning(
            "the %s ran out of memory with %d %s at a time; it goes on with %d",
            *(self.model, size, self._items, self._most),
        )


def add_halvings(one: Mapping[str, Halvings], other: Mapping[str, Halvings]) -> dict[str, Halvings]:
    """Both, by model."""
    both = dict(one)
    for model, halvings in other.items():
        both[model] = both[model] + halvings if model in both else halvings
    return both


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of a model means that memory ran out, on a GPU or in the process."""
    if isinstance(error, GeosweepError):
        return False
    torch = sys.modules.get("torch")
    known = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or any(sign in str(error) for sign in _SIGNS)


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
