"""Merge the small data files of an output into few, spatially sorted ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.collection import write_snapshot
from ..catalog.compact import MADE_FOR, Footer, Group, Shelf
from ..catalog.errors import StorageError
from ..catalog.lease import PATIENCE_S, lease, somebody_writes
from ..catalog.stacitems import multihash
from ..catalog.storage import MissingKeyError

if TYPE_CHECKING:
    from ..catalog import Storage
    from ..catalog.lease import Lease

TARGET_SIZE = 256 << 20
_THREADS = 8
_BATCH = 256


@dataclass(slots=True)
class CompactReport:
    """What `compact` did, or in a dry run would do.

    Parameters
    ----------
    files_before, files_after
        Data files that items point to.
    merged, written
        How many files became how many; zero if there was nothing to do.
    scenes
        Whose items point to another file now.
    skipped
        Scenes that a run replaced in the meantime; the next compaction takes them.
    rows, dead
        Rows in the new files, and rows of replaced scenes that were dropped.
    bytes_before, bytes_after
        Of the merged and the written files; zero in a dry run.
    removed
        Files that nobody points to any more.
    left
        Files that nobody points to yet: they may be those of a run that is writing just now.
    holder
        Who else is at work on the output, so that nothing was done; None otherwise.
    """

    files_before: int = 0
    files_after: int = 0
    merged: int = 0
    written: int = 0
    scenes: int = 0
    skipped: int = 0
    rows: int = 0
    dead: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    removed: int = 0
    left: int = 0
    holder: str | None = None


def compact(
    storage: Storage,
    collection: dict[str, Any],
    *,
    target_size: int = TARGET_SIZE,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> CompactReport:
    """Merge small data files into few, each of scenes that are neighbours, rows in Hilbert order.

    A new file is put first; then each scene's item is replaced to point to it; when all are, the
    snapshot is written and the old files are removed. So readers that follow items see the same rows
    at every moment, and what a killed compaction left is finished or removed by the next one. Until
    the old files go, rows take up to twice the room. Rows of scenes that were replaced since are
    dropped. What is compact already is left alone.

    The rows of one new file are in memory at a time, which take about four times its size on disk;
    one is at most half as large again as `target_size`.

    Parameters
    ----------
    storage, collection
        Of the output, from `open_output`.
    target_size
        Bytes of parquet in a file. Larger ones are not split.
    dry_run
        Only say what would be done.
    progress
        Called with the numbers of merged files and of files to merge.
    patience_s
        How long another process that works on the output must be silent to be taken for dead.

    Raises
    ------
    OutputError
        If a data file or an item can't be read.
    StorageError
        If the storage can't be reached, or another process took over.
    """
    if dry_run:
        with _shelf(storage, target_size) as shelf:
            return _foreseen(shelf)
    with lease(storage, "compact", patience_s=patience_s) as held:
        if not held:
            return CompactReport(holder=held.holder)
        pool = ThreadPoolExecutor(_THREADS, "geosweep-compact")
        with pool, _shelf(storage, target_size) as shelf:
            work = _Compaction(storage, collection, target_size, shelf, held, pool)
            return work.run(progress, lambda: somebody_writes(storage, patience_s=patience_s))


def _shelf(storage: Storage, target_size: int) -> Shelf:
    return Shelf(storage, target_size, lambda key: _footer(storage, key))


def _footer(storage: Storage, key: str) -> Footer:
    from .datafiles import open_parquet, unreadable

    try:
        file = open_parquet(storage, key)
    except MissingKeyError:
        raise unreadable(key) from None
    with file:
        metadata = file.schema_arrow.metadata or {}
        return Footer(file.metadata.num_rows, int(metadata.get(MADE_FOR, 0)))


def _foreseen(shelf: Shelf) -> CompactReport:
    report = CompactReport(files_before=shelf.files)
    for group in shelf.groups():
        report.merged += len(group.files)
        report.written += 1
        report.scenes += len(group.members)
        report.rows += group.rows
        report.dead += shelf.sums(group)[1]
    report.files_after = report.files_before - report.merged + report.written
    leftovers = list(shelf.leftovers(somebody_writes=lambda: False))
    report.removed = len(leftovers) + report.merged
    return report


class _Compaction:
    def __init__(
        self,
        storage: Storage,
        collection: dict[str, Any],
        target_size: int,
        shelf: Shelf,
        held: Lease,
        pool: ThreadPoolExecutor,
    ) -> None:
        from .outputs import crs_of_rows

        self._storage = storage
        self._crs = crs_of_rows(collection)
        self._target = target_size
        self._shelf = shelf
        self._held = held
        self._pool = pool
        self._report = CompactReport()

    def run(
        self, progress: Callable[[int, int], None] | None, busy: Callable[[], bool]
    ) -> CompactReport:
        shelf, report = self._shelf, self._report
        self._storage.sweep_temporary()
        report.files_before = shelf.files
        total = shelf.to_merge
        for group in shelf.groups():
            self._merge(group)
            if progress:
                progress(report.merged, total)
        report.files_after = shelf.files
        leftovers = shelf.leftovers(somebody_writes=busy)
        first = next(leftovers, None)
        if first is None and not report.written:
            return report
        self._check_held()
        # Before files go, so that those who follow the snapshot find theirs, too.
        write_snapshot(self._storage)
        if first is not None:
            self._remove(chain((first,), leftovers))
        return report

    def _remove(self, leftovers: Iterator[tuple[str, bool]]) -> None:
        report = self._report
        while batch := list(islice(leftovers, _BATCH)):
            self._check_held()
            unneeded = [key for key, may_go in batch if may_go]
            list(self._pool.map(self._storage.delete, unneeded))
            report.removed += len(unneeded)
            report.left += len(batch) - len(unneeded)

    def _merge(self, group: Group) -> None:
        from ._mergedfile import load_rows, write_rows
        from .datafiles import open_files

        self._check_held()
        report, key = self._report, group.key
        # Files without rows are only opened where nothing else tells the columns.
        files = open_files(self._storage, group.members, empty=not group.rows)
        table = load_rows(files)
        if table is None:  # all were withdrawn in the meantime
            return
        with tempfile.TemporaryDirectory(prefix="geosweep-") as folder:
            path = Path(folder) / "rows.parquet"
            notes = {MADE_FOR: str(self._target).encode()}
            try:
                write_rows(table, path, self._crs, notes)
            except OSError as error:
                raise StorageError(
                    f"{folder} can't hold a merged file ({error}); make room there, or set TMPDIR to "
                    "a larger folder."
                ) from None
            rows = table.num_rows
            del table
            size, checksum = path.stat().st_size, multihash(path)
            self._check_held()
            self._storage.put_file(key, path)
        moving = [
            self._pool.submit(self._shelf.move, m, key, size, checksum) for m in group.members
        ]
        done = [m for m, future in zip(group.members, moving, strict=True) if future.result()]
        self._shelf.moved(done, key)
        if size > self._target / 8:  # small files are mostly footer
            self._shelf.bytes_per_row = size / max(rows, 1)
        report.merged += len(group.files)
        report.written += 1
        report.scenes += len(done)
        report.skipped += len(group.members) - len(done)
        report.rows += rows
        before, dead = self._shelf.sums(group)
        report.dead += dead
        report.bytes_before += before
        report.bytes_after += size

    def _check_held(self) -> None:
        if not self._held:
            raise StorageError(
                f"Another process took over {self._storage.uri()}, since this one was silent for "
                "long; what is merged is kept, the same command goes on."
            )
