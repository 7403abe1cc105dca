"""The data files of an output that count, each opened once, and the rows in them that do."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..catalog import MissingKeyError, Records
from ..catalog.errors import OutputError
from ..catalog.sharedfiles import FileRows, Member, SharedFiles, member_of, members

if TYPE_CHECKING:
    from ..catalog import Storage

_BATCH = 65_536
_THREADS = 8
_ROWS_AHEAD = 1_000_000
"""How many rows may be on their way: some 100 MB."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that is open, and whose rows of it count.

    Parameters
    ----------
    key
        Its key in the output.
    scenes
        Ids of the scenes whose rows count.
    parquet
        The whole file, dead rows included.
    dead
        How many rows are of scenes that were replaced since, and don't count.
    """

    key: str
    scenes: frozenset[str]
    parquet: pq.ParquetFile
    dead: int

    @property
    def names(self) -> list[str]:
        """The file's columns."""
        return self.parquet.schema_arrow.names

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows that count, at most 65,536 at a time.

        Raises
        ------
        OutputError
            If the file is broken.
        """
        chosen = list(self.names if columns is None else columns)
        also = ["scene_id"] if self.dead and "scene_id" not in chosen else []
        ids = pa.array(sorted(self.scenes), pa.string())
        with _reading(self.key):
            # One iterator over the whole file would keep something of each row group until its end.
            for group in range(self.parquet.num_row_groups):
                for batch in self.parquet.iter_batches(
                    _BATCH, row_groups=[group], columns=chosen + also
                ):
                    rows = self._live(batch, ids).select(chosen)
                    if rows.num_rows:
                        yield rows

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows that count as one table.

        Raises
        ------
        OutputError
            If the file is broken.
        """
        schema = self.parquet.schema_arrow
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
        return pa.Table.from_batches(self.batches(columns), schema)

    def _live(self, batch: pa.RecordBatch, ids: pa.Array) -> pa.RecordBatch:
        if not self.dead:
            return batch
        return batch.filter(pc.is_in(batch["scene_id"], value_set=ids))  # type: ignore[attr-defined]


def open_files(
    storage: Storage, scenes: Iterable[Member] | None = None, *, empty: bool = False
) -> Iterator[DataFile]:
    """Open the data files of scenes, each file once, one at a time; closed when the next one opens.

    A file that `catalog compact` removes in the meantime is looked up again by its items, so that a
    reader sees the rows of all scenes nevertheless. Memory does not grow with the number of scenes.

    Parameters
    ----------
    storage
        Of the output.
    scenes
        What the records of some scenes say; None for all of the output.
    empty
        Also open files in which no row counts.

    Raises
    ------
    OutputError
        If a file that an item points to is missing or can't be read.
    """
    found = members(storage) if scenes is None else scenes
    with SharedFiles() as shared:
        for rows, load in _loading(storage, _own(found, shared, empty=empty)):
            yield from _opened(storage, rows, load, shared)
        while (file := shared.pop()) is not None:
            yield from _opened(storage, file, None, shared)


def live_files(storage: Storage, scenes: Iterable[Member]) -> Iterator[FileRows]:
    """Yield the data files of scenes with rows, each once; ``shared`` only if it has dead rows, too.

    Only shared files are opened, and of them only the footer is read.

    Raises
    ------
    OutputError
        If a shared file is missing or can't be read.
    """
    with SharedFiles() as shared:
        for member in scenes:
            if member.rows and member.alone:
                yield FileRows(member.data, [member], shared=False)
            elif member.rows:
                shared.add(member)
        while (file := shared.pop()) is not None:
            try:
                with open_parquet(storage, file.key) as parquet:
                    yield file._replace(shared=parquet.metadata.num_rows != file.rows)
            except MissingKeyError:
                raise unreadable(file.key) from None


def open_parquet(
    storage: Storage, key: str, load: Callable[[], bytes] | None = None
) -> pq.ParquetFile:
    """Open a data file; of an object store part by part, unless `load` gives all of it.

    Raises
    ------
    MissingKeyError
        If there is none.
    OutputError
        If it is broken.
    """
    source: Any = storage.local_path(key)
    remote = source is None  # then columns that lie together are one request
    if remote:
        source = storage.open(key) if load is None else io.BytesIO(load())
    try:
        with _reading(key):
            return pq.ParquetFile(source, pre_buffer=remote)
    except FileNotFoundError:
        raise MissingKeyError(f"{storage.uri(key)} does not exist") from None


def _own(scenes: Iterable[Member], shared: SharedFiles, *, empty: bool) -> Iterator[FileRows]:
    """Yield scenes' own files; scenes in shared ones are put aside."""
    for member in scenes:
        if not member.rows and not empty:
            continue
        if member.alone:
            yield FileRows(member.data, [member], shared=False)
        else:
            shared.add(member)


def _loading(
    storage: Storage, files: Iterator[FileRows]
) -> Iterator[tuple[FileRows, Callable[[], bytes] | None]]:
    """Yield each file; of an object store with what gives its bytes, which are on their way."""
    if storage.local_path("data") is not None:
        yield from ((rows, None) for rows in files)
        return
    with ThreadPoolExecutor(_THREADS, "geosweep-files") as pool:
        coming: deque[tuple[FileRows, Future[bytes]]] = deque()
        try:
            for rows in files:
                coming.append((rows, pool.submit(storage.get, rows.key)))
                while len(coming) > _THREADS or sum(r.rows for r, _ in coming) > _ROWS_AHEAD:
                    first, future = coming.popleft()
                    yield first, future.result
            while coming:
                first, future = coming.popleft()
                yield first, future.result
        finally:
            for _, future in coming:
                future.cancel()


def _opened(
    storage: Storage, rows: FileRows, load: Callable[[], bytes] | None, shared: SharedFiles
) -> Iterator[DataFile]:
    try:
        file = open_parquet(storage, rows.key, load)
    except MissingKeyError:
        _look_again(storage, rows, shared)
        return
    with file:
        ids = frozenset(member.scene_id for member in rows.members)
        dead = file.metadata.num_rows - rows.rows if rows.shared else 0
        yield DataFile(rows.key, ids, file, dead)


def _look_again(storage: Storage, rows: FileRows, shared: SharedFiles) -> None:
    """Put the scenes of a file that is gone back into the queue, under the file they moved to."""
    records = Records(storage)
    for member in rows.members:
        now = member_of(records.read(member.scene_id))
        if now is not None and now.data == rows.key:
            raise unreadable(rows.key)
        if now is not None:
            shared.add(now)


@contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise unreadable(key) from error


def unreadable(key: str) -> OutputError:
    """What to say of a data file that is lost or broken."""
    return OutputError(
        f"The data file {key}, which an item points to, can't be read; remove it if it is there, and "
        "run the job again with --overwrite."
    )
