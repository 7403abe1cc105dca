"""Memory that large arrays take turns in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

LARGE = 8 * 2**20
"""Bytes from which it pays: the memory of smaller arrays the C library keeps at hand."""
KEPT = 3
"""Buffers that wait to be used again: a row of large windows lets go of as many bands at once."""


class Buffers:
    """Makes large arrays in memory where an earlier one was that nobody refers to any more.

    The C library gives arrays of tens of megabytes back to the system at once, and the next one begins
    with page faults, which cost a tenth to a fifth of decoding where memory is in demand. Any thread
    may ask.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Make an array whose content is anything; it, and each view of it, may be kept for ever."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < LARGE:
            return np.empty(shape, dtype)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if memory.nbytes < size:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Loan(memory, memory[:size].view(dtype).reshape(shape), self._free))


class _Loan:
    """What an array and its views hold on to, as numpy's `base`: the memory is free when this is gone."""

    def __init__(
        self, memory: NDArray[np.uint8], array: NDArray[Any], free: list[NDArray[np.uint8]]
    ) -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = array.__array_interface__

    def __del__(self) -> None:
        if len(self._free) < KEPT:
            self._free.append(self._memory)
