"""What comes twice among more values than memory holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ._scratch import Scratch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PARTITIONS = 64
_FIND = "SELECT 1 FROM repeated WHERE hash = ?"


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


class RepeatedHashes:
    """Those of many hashes that come several times: mostly none, and so false.

    With 64 bits, two of a million values have one hash by chance in one case of 37 million.

    Parameters
    ----------
    hashes
        Signed, of 64 bits, such as `hash` gives.
    """

    def __init__(self, hashes: Iterable[int]) -> None:
        self._table = Scratch("CREATE TABLE hashes (hash INTEGER)")
        self._table.fill("INSERT INTO hashes VALUES (?)", ((value,) for value in hashes))
        self._table.execute(
            "CREATE TABLE repeated AS SELECT hash FROM hashes GROUP BY hash HAVING count(*) > 1"
        )
        self._table.execute("DROP TABLE hashes")
        self._table.execute("CREATE INDEX by_hash ON repeated (hash)")
        self._any = self._table.first("SELECT 1 FROM repeated") is not None

    def __bool__(self) -> bool:
        return self._any

    def __contains__(self, value: int) -> bool:
        return self._any and self._table.first(_FIND, (value,)) is not None
