"""Data files as a pyarrow dataset, without the rows of scenes that were replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as pads
from pyarrow import fs


class LiveFile(NamedTuple):
    """A file, and the scenes whose rows in it count if others don't."""

    path: Path
    scenes: frozenset[str] | None


class LiveDataset(pads.FileSystemDataset):
    """A dataset over files of which some hold dead rows; made by `live_dataset`.

    Pyarrow's filters can't name the file that a row is in, and filtered datasets can't be joined to
    one. So each scan goes through the files with dead rows one by one, each with a filter of its own,
    and through all others at once. Row groups are skipped by their statistics as ever.
    """

    _live: tuple[LiveFile, ...]
    _wanted: pads.Expression | None

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> pads.Scanner:
        """Build a scan; see `pyarrow.dataset.Dataset.scanner`."""
        shape = pads.dataset([], schema=self.schema).scanner(columns=columns).projected_schema
        batches = (
            batch
            for scan in self._scans(filter, columns=columns, **options)
            for batch in scan.to_batches()
        )
        return pads.Scanner.from_batches(batches, schema=shape)

    def count_rows(self, filter: Any = None, **options: Any) -> int:
        """Count rows, by the files' metadata where that is enough."""
        return sum(scan.count_rows() for scan in self._scans(filter, **options))

    def filter(self, expression: pads.Expression) -> LiveDataset:
        """A dataset with a further filter; see `pyarrow.dataset.Dataset.filter`."""
        return _made(self._live, self.schema, _and(self._wanted, expression))

    def sort_by(self, sorting: Any, **options: Any) -> pads.InMemoryDataset:
        """Sort in memory, as pyarrow does; see `pyarrow.dataset.Dataset.sort_by`."""
        return self._loaded().sort_by(sorting, **options)

    def join(self, *arguments: Any, **options: Any) -> pads.InMemoryDataset:
        """Join in memory, as pyarrow does; see `pyarrow.dataset.Dataset.join`."""
        return self._loaded().join(*arguments, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self._live, self.schema, self._wanted)

    def _scans(self, filter: Any, **options: Any) -> Iterator[pads.Scanner]:
        wanted = _and(self._wanted, filter)
        whole = [str(file.path) for file in self._live if file.scenes is None]
        if whole:
            yield pads.dataset(whole, schema=self.schema).scanner(filter=wanted, **options)
        for file in self._live:
            if file.scenes is not None:
                part = pads.dataset(str(file.path), schema=self.schema)
                live = pads.field("scene_id").isin(sorted(file.scenes))
                yield part.scanner(filter=_and(wanted, live), **options)

    def _loaded(self) -> pads.InMemoryDataset:
        # Pyarrow's own sorts and joins go past `scanner`.
        return pads.InMemoryDataset(self.to_table())


def live_dataset(files: Iterable[LiveFile], schema: pa.Schema) -> pads.Dataset:
    """Make a dataset of the rows that count; a plain one, if all of them do."""
    known = tuple(files)
    if all(file.scenes is None for file in known):
        return pads.dataset([str(file.path) for file in known], schema=schema)
    return _made(known, schema, None)


def _made(
    files: tuple[LiveFile, ...], schema: pa.Schema, wanted: pads.Expression | None
) -> LiveDataset:
    format, disk = pads.ParquetFileFormat(), fs.LocalFileSystem()
    fragments = [format.make_fragment(str(file.path), disk) for file in files]
    dataset = LiveDataset(fragments, schema, format, disk)
    dataset._live, dataset._wanted = files, wanted
    return dataset


def _and(one: pads.Expression | None, other: pads.Expression | None) -> pads.Expression | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
