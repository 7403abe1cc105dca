"""stac-geoparquet, read lazily and written with null geometries.

rustac does this for complete items, but (0.9) refuses a null geometry, an empty list of items and
an empty object, all of which a run's records hold, and reads only whole files. Hence pyarrow here;
the tests hold both directions against rustac.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .intervals import format_time, parse_time

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_TOP = ("type", "stac_version", "stac_extensions", "id", "collection", "links", "assets")
_TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated")
_JSON = ("geosweep:extra",)  # free-form: two items may hold different types under one name
_BATCH = 1000
_BATCHES_OF_GROUP = 5
_BOX = ("xmin", "ymin", "xmax", "ymax")


def read_items(file: Path | BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the items of a stac-geoparquet file as dictionaries, a batch in memory at a time.

    Raises
    ------
    ValueError
        If the file is not parquet, or has no column ``id``, ``assets`` or ``geometry``.
    """
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    missing = {"id", "assets", "geometry"} - set(parquet.schema_arrow.names)
    if missing:
        raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    for batch in _batches(parquet):
        for row in batch.to_pylist():
            yield item_of_row(row)


def read_keys(file: Path | BinaryIO) -> Iterator[tuple[str | None, str]]:
    """Yield (collection, id) of each item, reading only those two columns."""
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    columns = [name for name in ("id", "collection") if name in parquet.schema_arrow.names]
    for batch in _batches(parquet, columns):
        for row in batch.to_pylist():
            yield row.get("collection"), row["id"]


def _batches(parquet: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    # One iterator over the whole file would keep something of each row group until its end.
    for group in range(parquet.num_row_groups):
        yield from parquet.iter_batches(_BATCH, row_groups=[group], columns=columns)


def write_items(items: Iterable[dict[str, Any]], path: Path) -> int:
    """Write items to a stac-geoparquet file, without the empty objects parquet can't hold.

    Memory does not grow with their number: what columns there are is known at the end alone, so
    batches lie in temporary files until then.

    Returns
    -------
    int
        How many items there were; a file without rows is written for none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = iter(items)
    kinds: set[str] = set()
    schema: Any = None
    parts: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="geosweep-") as folder:
        while batch := list(islice(stream, _BATCH)):
            kinds |= {item["geometry"]["type"] for item in batch if item.get("geometry")}
            table = _table([_row(item) for item in batch])
            # The permissive promotion joins batches of which one lacks a field that another has.
            schema = table.schema if schema is None else _joined(schema, table.schema)
            parts.append(Path(folder) / f"{len(parts)}.parquet")
            pq.write_table(table, parts[-1], compression="zstd")
        schema = (_table([]).schema if schema is None else schema).with_metadata(_metadata(kinds))
        empty = schema.empty_table()
        count = 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, len(parts), _BATCHES_OF_GROUP):
                some = [pq.read_table(part) for part in parts[start : start + _BATCHES_OF_GROUP]]
                table = pa.concat_tables([empty, *some], promote_options="permissive")
                writer.write_table(table, row_group_size=table.num_rows)
                count += table.num_rows
    return count


def _joined(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    if schema.equals(other):
        return schema
    return pa.unify_schemas([schema, other], promote_options="permissive")


def _row(item: dict[str, Any]) -> dict[str, Any]:
    import shapely
    from shapely.geometry import shape

    row: dict[str, Any] = {name: item.get(name) for name in _TOP}
    row |= {name: _filled(value) for name, value in item["properties"].items()}
    row["assets"] = _filled(item.get("assets"))
    for name in _TIMES:
        if isinstance(row.get(name), str):
            row[name] = parse_time(row[name])
    for name in _JSON:
        if row.get(name) is not None:
            row[name] = json.dumps(row[name])
    if row.get("proj:transform") is not None:
        row["proj:transform"] = [float(number) for number in row["proj:transform"]]
    geometry = item.get("geometry")
    bbox = item.get("bbox")
    row["bbox"] = None if bbox is None else dict(zip(_BOX, map(float, bbox), strict=True))
    row["geometry"] = None if geometry is None else shapely.to_wkb(shape(geometry))
    return row


def _filled(value: Any) -> Any:
    """Return `value` without empty objects, which parquet has no type for."""
    if isinstance(value, dict):
        return {key: _filled(part) for key, part in value.items()} or None
    return value


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    time = pa.timestamp("us", tz="UTC")
    fixed = {
        "type": pa.string(),
        "stac_version": pa.string(),
        "id": pa.string(),
        **dict.fromkeys(_TIMES, time),
        "bbox": pa.struct([(name, pa.float64()) for name in _BOX]),
        "geometry": pa.binary(),
    }
    if not rows:
        names = dict.fromkeys([*fixed, "assets"])
        fixed["assets"] = pa.struct([("data", pa.struct([("href", pa.string())]))])
    last = ("bbox", "geometry")
    order = [name for name in names if name not in last] + list(last)
    columns = [pa.array([row.get(name) for row in rows], fixed.get(name)) for name in order]
    return pa.table(columns, names=order)


def _metadata(kinds: set[str]) -> dict[bytes, bytes]:
    column = {
        "encoding": "WKB",
        "geometry_types": sorted(kinds),
        "covering": {"bbox": {name: ["bbox", name] for name in _BOX}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    stac = {"version": "1.0.0"}
    return {b"geo": json.dumps(geo).encode(), b"stac-geoparquet": json.dumps(stac).encode()}


def item_of_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the item that a row of a stac-geoparquet file is; takes the row apart."""
    import shapely
    from shapely.geometry import mapping

    geometry = row.pop("geometry", None)
    bbox = row.pop("bbox", None)
    item: dict[str, Any] = {name: row.pop(name, None) for name in _TOP}
    for name in ("collection", "stac_extensions"):
        if item[name] is None:  # a column's null, where the item has nothing
            del item[name]
    assets = item["assets"]
    item["assets"] = json.loads(assets) if isinstance(assets, str) else _given(assets) or {}
    item["links"] = _given(item["links"]) or []
    item["geometry"] = None if geometry is None else mapping(shapely.from_wkb(geometry))
    if bbox is not None:
        item["bbox"] = list(bbox.values()) if isinstance(bbox, dict) else bbox
    for name in _JSON:
        if isinstance(row.get(name), str):
            row[name] = json.loads(row[name])
    item["properties"] = {"datetime": None} | _given(row)
    return item


def _given(value: Any) -> Any:
    """Return `value` without the nulls that columns put where an item had nothing."""
    if isinstance(value, dict):
        return {key: _given(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_given(part) for part in value]
    return format_time(value) if isinstance(value, datetime) else value
