"""Counting what comes twice among more values than memory holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PARTITIONS = 64


class Repeats:
    """Counts hashes of 64 bits that come again: 8 bytes on disk for each, a part of them in memory.

    Among 10⁹ different values there are two with one hash with a chance of 3 %.

    Parameters
    ----------
    folder
        For files; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._parts = [folder / f"{number}.u64" for number in range(_PARTITIONS)]

    def add(self, hashes: NDArray[np.uint64]) -> None:
        import numpy as np

        part = hashes % np.uint64(_PARTITIONS)
        for number in np.unique(part):
            with self._parts[int(number)].open("ab") as file:
                file.write(hashes[part == number].tobytes())

    def count(self) -> int:
        import numpy as np

        parts = (np.fromfile(path, np.uint64) for path in self._parts if path.exists())
        return sum(len(part) - len(np.unique(part)) for part in parts)
