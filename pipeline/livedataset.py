"""Data files as a pyarrow dataset, without the rows of scenes that were replaced."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as pads
from pyarrow import fs

_FILE = "__geosweep_file"


class LiveFile(NamedTuple):
    """A file, and the scenes whose rows in it count if others don't."""

    path: Path
    scenes: frozenset[str] | None


class LiveDataset(pads.FileSystemDataset):
    """A dataset over files of which some hold dead rows.

    A filter can't name the file that a row is in. So each file is a partition by its number, a column
    that only filters know: scanners hide it, and leave out dead rows before anything else is asked
    of them. Row groups are skipped by their statistics as ever.
    """

    _live: pads.Expression
    _shown: pa.Schema

    @classmethod
    def over(cls, files: Iterable[LiveFile], schema: pa.Schema) -> pads.Dataset:
        """Make a dataset of the rows that count; a plain one, if all of them do."""
        known = list(files)
        if all(file.scenes is None for file in known):
            return pads.dataset([str(file.path) for file in known], schema=schema)
        format = pads.ParquetFileFormat()
        disk = fs.LocalFileSystem()
        fragments, dead = [], []
        for number, file in enumerate(known):
            here = pads.field(_FILE) == number
            fragments.append(format.make_fragment(str(file.path), disk, partition_expression=here))
            if file.scenes is not None:
                live = pads.field("scene_id").isin(sorted(file.scenes))
                dead.append(here & ~live)
        whole = schema.append(pa.field(_FILE, pa.int32()))
        return _made(
            (fragments, whole, format, disk), schema, ~functools.reduce(operator.or_, dead)
        )

    @property
    def schema(self) -> pa.Schema:
        """The columns of an output."""
        return self._shown

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> pads.Scanner:
        """Build a scan; see `pyarrow.dataset.Dataset.scanner`."""
        chosen = self._shown.names if columns is None else columns
        return super().scanner(columns=chosen, filter=_and(self._live, filter), **options)

    def filter(self, expression: pads.Expression) -> LiveDataset:
        """A dataset with a further filter; see `pyarrow.dataset.Dataset.filter`."""
        return _made(self._parts(), self._shown, self._live & expression)

    def sort_by(self, sorting: Any, **options: Any) -> pads.InMemoryDataset:
        """Sort in memory, as pyarrow does; see `pyarrow.dataset.Dataset.sort_by`."""
        return self._loaded().sort_by(sorting, **options)

    def join(self, *arguments: Any, **options: Any) -> pads.InMemoryDataset:
        """Join in memory, as pyarrow does; see `pyarrow.dataset.Dataset.join`."""
        return self._loaded().join(*arguments, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self._parts(), self._shown, self._live)

    def _parts(self) -> tuple[Any, ...]:
        return list(self.get_fragments()), super().schema, self.format, self.filesystem

    def _loaded(self) -> pads.InMemoryDataset:
        # Pyarrow's own sorts and joins go past `scanner`.
        return pads.InMemoryDataset(self.to_table())


def _made(parts: tuple[Any, ...], shown: pa.Schema, live: pads.Expression) -> LiveDataset:
    dataset = LiveDataset(*parts)
    dataset._shown, dataset._live = shown, live
    return dataset


def _and(live: pads.Expression, wanted: pads.Expression | None) -> pads.Expression:
    return live if wanted is None else live & wanted
