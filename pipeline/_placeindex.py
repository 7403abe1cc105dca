"""Scenes by where they lie, on disk: an R-tree over leaves that are packed all at once.

SQLite's R*Tree places each box by itself, which takes most of the time of a million of them. Here each
of its boxes is that of a leaf of 64 scenes, sorted by place beforehand, and so there are few.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog._scratch import Scratch
from ..catalog.errors import JobError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._places import Places

_LEAF = 64
_SORTED = 1 << 18
"""Scenes that are sorted at a time, some 100 bytes of memory each; more make several sets of leaves."""

_ROWS = "CREATE TABLE place (number INTEGER PRIMARY KEY, id, time, updated, grid, crs, wkb)"
_LEAVES = "CREATE VIRTUAL TABLE leaf USING rtree(n, west, east, south, north, +numbers, +boxes)"
_NEAR = (
    "SELECT numbers, boxes FROM leaf WHERE west <= ? AND south <= ? AND east >= ? AND north >= ?"
)
_PLACE = "SELECT id, time, updated, grid, crs, wkb FROM place WHERE number = ?"


class PlaceIndex:
    """Finds scenes by their bounding boxes; in a temporary database.

    Raises
    ------
    JobError
        If this Python's SQLite can't search by place.
    """

    def __init__(self) -> None:
        _check_sqlite()
        self._database = Scratch(_ROWS, _LEAVES)
        self._numbers: list[NDArray[np.int64]] = []
        self._boxes: list[NDArray[np.float64]] = []
        self._leaves = 0
        self.close = self._database.close
        """Remove the temporary database."""

    def add(self, places: Places) -> None:
        """Add some scenes; `pack` makes them known to `near`."""
        rows = (
            (number, *row) for number, row in zip(places.numbers.tolist(), places.rows, strict=True)
        )
        self._database.fill("INSERT INTO place VALUES (?,?,?,?,?,?,?)", rows)
        self._numbers.append(places.numbers)
        self._boxes.append(places.boxes)
        if sum(map(len, self._numbers)) >= _SORTED:
            self.pack()

    def pack(self) -> None:
        """Make leaves of what was added."""
        if not self._numbers:
            return
        numbers, boxes = np.concatenate(self._numbers), np.concatenate(self._boxes)
        self._numbers, self._boxes = [], []
        order = _tiled(boxes)
        for start in range(0, len(order), _LEAF):
            chosen = order[start : start + _LEAF]
            some = boxes[chosen]
            west, south = some[:, :2].min(axis=0).tolist()
            east, north = some[:, 2:].max(axis=0).tolist()
            blobs = numbers[chosen].tobytes(), some.tobytes()
            row = (self._leaves, west, east, south, north, *blobs)
            self._database.execute("INSERT INTO leaf VALUES (?,?,?,?,?,?,?)", row)
            self._leaves += 1

    def near(self, box: tuple[float, float, float, float]) -> list[int]:
        """Numbers of all scenes whose boxes touch a box (west, south, east, north), in order."""
        west, south, east, north = box
        # The tree keeps 32 bits of a coordinate, rounded outwards: it may only find too many.
        leaves = self._database.execute(_NEAR, (east, north, west, south)).fetchall()
        numbers = np.frombuffer(b"".join(leaf[0] for leaf in leaves), np.int64)
        boxes = np.frombuffer(b"".join(leaf[1] for leaf in leaves)).reshape(-1, 4)
        touched = (boxes[:, :2] <= (east, north)).all(axis=1)
        touched &= (boxes[:, 2:] >= (west, south)).all(axis=1)
        return np.sort(numbers[touched]).tolist()

    def row(self, number: int) -> tuple[Any, ...]:
        """The fields of a scene's `Place`, but for the footprint."""
        return self._database.first(_PLACE, (number,))


def _tiled(boxes: NDArray[np.float64]) -> NDArray[np.intp]:
    """Order in which boxes that follow each other lie near each other: sort-tile-recursive packing.

    After Leutenegger, Lopez and Edgington, "STR: a simple and efficient algorithm for R-tree packing"
    (ICDE 1997).
    """
    x, y = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    by_x = np.argsort(x)
    column = np.empty(len(x), np.int64)
    columns = math.ceil(math.sqrt(len(x) / _LEAF))
    column[by_x] = np.arange(len(x)) // (columns * _LEAF)
    return np.lexsort((y, column))


def _check_sqlite() -> None:
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE VIRTUAL TABLE test USING rtree(id, low, high)")
    except sqlite3.OperationalError as error:
        raise JobError(
            f"The SQLite {sqlite3.sqlite_version} of this Python has no R*Tree ({error}), by which "
            "overlapping scenes are found; use a Python whose SQLite has it, such as Debian's or "
            "conda's, or set merge.scenes to none."
        ) from None
