"""Sums by cell of an endless grid, in bounded memory: sorted runs on disk, merged tile by tile."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..catalog.errors import JobError, OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 256
HELD = 1 << 19
MOST_CODES = 1 << 9

# A key is, from its highest bits: tile row, tile column (19 bits each), cell in the tile (16 bits),
# code (9 bits). So sorted keys are tiles in raster order, cells within them, and codes within those.
_CELL_BITS = 16
_CODE_BITS = 9
_TILE_BITS = 19
_TILE_SHIFT = _CELL_BITS + _CODE_BITS
_HALF = 1 << (_TILE_BITS - 1)
FARTHEST = (_HALF - 1) * TILE

ENTRY = np.dtype(
    [
        ("key", np.int64),
        ("count", np.int64),
        ("score", np.float64),
        ("scores", np.int64),
        ("area", np.float64),
        ("areas", np.int64),
    ]
)
"""Of one cell and one code: how many points; the sum, and the number, of their scores and areas."""


class Tile(NamedTuple):
    """The cells of a tile that have points.

    Parameters
    ----------
    row, column
        Of the tile's first cell, in the endless grid.
    cells
        Row-major number in the tile of each entry's cell, (N,), in 0 … TILE² - 1.
    codes
        Of each entry, (N,).
    entries
        `ENTRY` (N,); one for each cell and code, sorted.
    """

    row: int
    column: int
    cells: NDArray[np.int64]
    codes: NDArray[np.int64]
    entries: NDArray[np.void]


class CellSums:
    """Counts and sums of points by cell.

    The grid has no origin but its CRS's: cell (row, column) covers x from ``column * cell`` and y
    down from ``-row * cell``, its upper and left edges included, so that all grids of one cell size fit
    on each other. Points are reduced to cells in memory; what is too much is sorted and laid on disk,
    and all of it is merged tile by tile at the end (external merge sort). Memory depends on `limit` and
    on the size of a tile, not on the number of points or cells.

    Parameters
    ----------
    cell
        Side of a cell in units of the CRS.
    folder
        For the sorted runs; the caller's to remove.
    limit
        Entries in memory, 48 bytes each and as much again a few times while they are sorted.
    """

    def __init__(self, cell: float, folder: Path, *, limit: int = HELD) -> None:
        self._cell = cell
        self._folder = folder
        self._limit = limit
        self._pending: list[NDArray[np.void]] = []
        self._pending_count = 0
        self._runs: list[Path] = []
        self.points = 0
        self.rows: tuple[int, int] | None = None
        self.columns: tuple[int, int] | None = None

    def add(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        score: NDArray[np.float64],
        area: NDArray[np.float64],
        code: NDArray[np.int64] | None = None,
    ) -> None:
        """Add points (N,).

        Parameters
        ----------
        x, y
            Map coordinates, finite.
        score, area
            Where NaN, they don't enter sums and means.
        code
            A class of each point, 0 … MOST_CODES - 1; None for 0.

        Raises
        ------
        JobError
            If the cells are so small that they can't be numbered.
        """
        if not len(x):
            return
        column, row = np.floor(x / self._cell), np.floor(-y / self._cell)
        farthest = max(float(np.abs(column).max()), float(np.abs(row).max()))
        if farthest >= FARTHEST:
            least = farthest * self._cell / FARTHEST
            raise JobError(
                f"Cells of {self._cell:g} are too small this far from the origin of the CRS; "
                f"take at least {least * 1.01:.3g}."
            )
        row, column = row.astype(np.int64), column.astype(np.int64)
        self.rows = _widened(self.rows, row)
        self.columns = _widened(self.columns, column)
        entries = np.empty(len(x), ENTRY)
        entries["key"] = _keys(row, column, np.zeros(1, np.int64) if code is None else code)
        entries["count"] = 1
        for sums, numbers, values in (("score", "scores", score), ("area", "areas", area)):
            known = np.isfinite(values)
            entries[sums] = np.where(known, values, 0.0)
            entries[numbers] = known
        self.points += len(x)
        for start in range(0, len(entries), self._limit):
            self._hold(entries[start : start + self._limit])

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles that have points, in raster order; more may be added afterwards."""
        held = _reduced(np.concatenate(self._pending)) if self._pending else np.empty(0, ENTRY)
        self._pending, self._pending_count = [held], len(held)
        # All blocks that wait together are as large as what is held while points come in.
        block = max(64, self._limit // max(len(self._runs), 1))
        runs = [_Run(_from_file(path), block) for path in self._runs]
        runs.append(_Run(lambda start, count: held[start : start + count], block))
        waiting = [(run.tile, number) for number, run in enumerate(runs) if run.tile is not None]
        heapq.heapify(waiting)
        while waiting:
            tile = waiting[0][0]
            entries = np.empty(0, ENTRY)
            while waiting and waiting[0][0] == tile:
                _, number = heapq.heappop(waiting)
                entries = _reduced(np.concatenate([entries, runs[number].take()]))
                following = runs[number].tile
                if following is not None:
                    heapq.heappush(waiting, (following, number))
            yield _tile(tile, entries)

    def _hold(self, entries: NDArray[np.void]) -> None:
        self._pending.append(entries)
        self._pending_count += len(entries)
        if self._pending_count < self._limit:
            return
        held = _reduced(np.concatenate(self._pending))
        if len(held) > self._limit // 2:
            # Otherwise every few points would sort nearly all again.
            path = self._folder / f"run{len(self._runs)}.bin"
            _to_file(held, path)
            self._runs.append(path)
            held = held[:0].copy()
        self._pending, self._pending_count = [held], len(held)


class _Run:
    """Sorted entries, read block by block and handed out tile by tile."""

    def __init__(self, read: Callable[[int, int], NDArray[np.void]], block: int) -> None:
        self._read = read
        self._block = block
        self._at = 0
        self._entries = np.empty(0, ENTRY)
        self._fill()

    @property
    def tile(self) -> int | None:
        """The tile of the next entry; None at the end."""
        return int(self._entries["key"][0]) >> _TILE_SHIFT if len(self._entries) else None

    def take(self) -> NDArray[np.void]:
        """All entries of the next tile."""
        tile, parts = self.tile, []
        assert tile is not None
        while self.tile == tile:
            end = int(np.searchsorted(self._entries["key"], (tile + 1) << _TILE_SHIFT))
            parts.append(self._entries[:end])
            self._entries = self._entries[end:]
            if not len(self._entries):
                self._fill()
        return np.concatenate(parts)

    def _fill(self) -> None:
        self._entries = self._read(self._at, self._block)
        self._at += len(self._entries)


def _to_file(entries: NDArray[np.void], path: Path) -> None:
    try:
        entries.tofile(path)
    except OSError as error:
        raise OutputError(
            f"The sums of the grid can't be kept in {path.parent}: {error}; set TMPDIR to a folder "
            "with more room."
        ) from error


def _from_file(path: Path) -> Callable[[int, int], NDArray[np.void]]:
    # Opened for each block: there may be more runs than a process may hold files open.
    return lambda start, count: np.fromfile(path, ENTRY, count, offset=start * ENTRY.itemsize)


def _keys(
    row: NDArray[np.int64], column: NDArray[np.int64], code: NDArray[np.int64]
) -> NDArray[np.int64]:
    tile_row, in_row = np.divmod(row, TILE)
    tile_column, in_column = np.divmod(column, TILE)
    tile = ((tile_row + _HALF) << _TILE_BITS) | (tile_column + _HALF)
    return (((tile << _CELL_BITS) | (in_row * TILE + in_column)) << _CODE_BITS) | code


def _tile(number: int, entries: NDArray[np.void]) -> Tile:
    row, column = divmod(number, 1 << _TILE_BITS)
    keys = entries["key"]
    return Tile(
        row=(row - _HALF) * TILE,
        column=(column - _HALF) * TILE,
        cells=(keys >> _CODE_BITS) & ((1 << _CELL_BITS) - 1),
        codes=keys & ((1 << _CODE_BITS) - 1),
        entries=entries,
    )


def _reduced(entries: NDArray[np.void]) -> NDArray[np.void]:
    """Sort entries, those of one key added up."""
    if not len(entries):
        return entries
    order = np.argsort(entries["key"], kind="stable")
    keys = entries["key"][order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    result = np.empty(len(starts), ENTRY)
    result["key"] = keys[starts]
    for name in ENTRY.names or ():
        if name != "key":
            result[name] = np.add.reduceat(entries[name][order], starts)
    return result


def _widened(extent: tuple[int, int] | None, values: NDArray[np.int64]) -> tuple[int, int]:
    least, most = int(values.min()), int(values.max())
    return (least, most) if extent is None else (min(least, extent[0]), max(most, extent[1]))
