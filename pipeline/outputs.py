"""Reading what earlier runs committed: the collection, and rows by the items that point to them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..catalog import MissingKeyError, Records, open_storage, read_collection
from ..catalog.errors import OutputError
from ..catalog.hrefs import public_href
from ..catalog.sharedfiles import FileRows, Member, SharedFiles, member_of, members
from .rows import to_geodataframe

if TYPE_CHECKING:
    from ..catalog import Storage

_BATCH = 65_536


def read_output(output: str | Path) -> gpd.GeoDataFrame:
    """Read the detections of an output, whichever run made them.

    Files that no item points to (left by a run that was killed) don't count. All rows are held in
    memory; for very large outputs, scan the files with pyarrow or DuckDB instead.

    Parameters
    ----------
    output
        Folder or ``s3://bucket/prefix`` that `run` or ``geosweep detect`` wrote.

    Returns
    -------
    geopandas.GeoDataFrame
        The output's columns but for ``bbox``; empty, with the same columns, if nothing was found.

    Raises
    ------
    OutputError
        If `output` is no output of geosweep, or a recorded file can't be read.
    """
    storage, collection = open_output(output)
    crs = crs_of_rows(collection)
    frames = [to_geodataframe(file.read(), crs) for file in open_files(storage)]
    if frames:
        both = pd.concat(frames, ignore_index=True)
        assert isinstance(both, gpd.GeoDataFrame)
        return both
    for file in open_files(storage, empty=True):
        return to_geodataframe(file.read(), crs)
    names = [column["name"] for column in collection.get("table:columns", [])]
    none = {name: [] for name in names if name not in ("bbox", "geometry")}
    return gpd.GeoDataFrame(none, geometry=[], crs=crs)


def open_output(output: str | Path) -> tuple[Storage, dict[str, Any]]:
    """Open an output that is there already; looking at it must not create a folder.

    Raises
    ------
    OutputError
        If there is none.
    """
    name = str(output)
    remedy = "give the folder that geosweep run or detect wrote"
    if "://" not in name and not Path(name).is_dir():
        raise OutputError(f"There is no folder {name}; {remedy}.")
    storage = open_storage(output)
    collection = read_collection(storage)
    if collection is None:
        raise OutputError(
            f"{public_href(name)} has no collection.json, so it is no output of geosweep; {remedy}."
        )
    return storage, collection


def crs_of_rows(collection: dict[str, Any]) -> str | None:
    """CRS of an output's rows, by its collection; None for pixels."""
    job = collection.get("geosweep:job") or {}
    return (job.get("output") or {}).get("crs", "EPSG:4326")


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
    with SharedFiles() as shared:
        for member in members(storage) if scenes is None else scenes:
            if not member.rows and not empty:
                continue
            if member.alone:
                yield from _opened(storage, FileRows(member.data, [member], False), shared)
            else:
                shared.add(member)
        while (file := shared.pop()) is not None:
            yield from _opened(storage, file, shared)


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


def open_parquet(storage: Storage, key: str) -> pq.ParquetFile:
    """Open a data file; one of an object store is read into memory.

    Raises
    ------
    MissingKeyError
        If there is none.
    OutputError
        If it is broken.
    """
    path = storage.local_path(key)
    source: Any = path if path is not None else io.BytesIO(storage.get(key))
    try:
        with _reading(key):
            return pq.ParquetFile(source)
    except FileNotFoundError:
        raise MissingKeyError(f"{storage.uri(key)} does not exist") from None


def _opened(storage: Storage, rows: FileRows, shared: SharedFiles) -> Iterator[DataFile]:
    try:
        file = open_parquet(storage, rows.key)
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
