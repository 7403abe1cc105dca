"""Several data files' rows as one GeoParquet file, in Hilbert order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..catalog._hilbert import hilbert_distances
from ..catalog.errors import OutputError
from .geofile import EDGES, bounds_of, write_geoparquet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .datafiles import DataFile

_GROUP_ROWS = 50_000


def load_rows(files: Iterable[DataFile]) -> pa.Table | None:
    """Return the rows of files that are one kind, text that repeats as dictionaries; None for no file.

    Raises
    ------
    OutputError
        If a file can't be read or has other columns than the first.
    """
    schema: pa.Schema | None = None
    chunks: list[pa.RecordBatch] = []
    for file in files:
        kind = file.parquet.schema_arrow.remove_metadata()
        schema = schema or kind
        if kind != schema:
            raise OutputError(
                f"The data file {file.key} has other columns than its neighbours; run the job again "
                "with --overwrite."
            )
        chunks += (_compact(batch) for batch in file.batches())
    if schema is None:
        return None
    if not chunks:
        return schema.empty_table()
    columns = [[batch.column(number) for batch in chunks] for number in range(len(schema))]
    del chunks
    joined: list[pa.ChunkedArray] = []
    while columns:  # one after the other, so that only one of them is there twice
        joined.insert(0, pa.chunked_array(columns.pop()).unify_dictionaries().combine_chunks())
    return pa.table(joined, names=schema.names)


def _compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        column.dictionary_encode()
        if pa.types.is_string(column.type) and name != "detection_id"
        else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def write_rows(table: pa.Table, path: Path, crs: str | None, notes: dict[bytes, bytes]) -> None:
    """Write rows of `load_rows` in Hilbert order, as `write_geoparquet` does, with flat memory.

    Rows without a CRS are in pixels, of which each scene has its own: there they stand scene by scene.

    Parameters
    ----------
    table, path, crs
        What, where, and the CRS of its geometry.
    notes
        More of the file's metadata.
    """
    middle = _middles(table)
    order = _hilbert_order(middle)
    if crs is None and table.num_rows:
        scenes = table["scene_id"].combine_chunks().indices.to_numpy()
        order = order[np.argsort(scenes[order], kind="stable")]
    schema = pa.schema(
        [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in table.schema
        ]
    )
    # Small ones, since a reader of a part reads whole groups; and equal ones, so that none is a stub.
    parts = np.array_split(order, max(1, len(order) // _GROUP_ROWS))
    groups = (table.take(pa.array(part)).cast(schema) for part in parts if len(part))
    write_geoparquet(groups, path, schema, crs=crs, bounds=bounds_of(table), notes=notes)


def _middles(table: pa.Table) -> NDArray[np.float64]:
    """Middles of the rows' boxes, (N, 2)."""
    if not table.num_rows:
        return np.zeros((0, 2))
    box = table["bbox"].combine_chunks()
    edges = [box.field(name).to_numpy(zero_copy_only=False) for name in EDGES]
    return np.column_stack([(edges[0] + edges[2]) / 2, (edges[1] + edges[3]) / 2])


def _hilbert_order(middle: NDArray[np.float64]) -> NDArray[np.int64]:
    """Row numbers along a Hilbert curve around all of them; equal places keep their order."""
    count = len(middle)
    if count < 2:
        return np.arange(count)
    bounds = (*middle.min(axis=0), *middle.max(axis=0))
    return np.argsort(hilbert_distances(middle, bounds), kind="stable")
