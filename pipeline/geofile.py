"""GeoParquet files: how rows are stored, whoever made them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyproj import CRS

from ._antimeridian import torn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

EDGES = ("xmin", "ymin", "xmax", "ymax")
"""Of a box, as its columns and the fields of `bbox` are called."""


def write_geoparquet(
    groups: Iterable[pa.Table],
    path: Path,
    schema: pa.Schema,
    *,
    crs: str | None,
    bounds: Sequence[float] | None,
    notes: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write rows as GeoParquet 1.1: zstd, bbox covering; memory is that of one group.

    Parameters
    ----------
    groups
        A row group each, which is not empty.
    schema
        Of the groups.
    crs, bounds
        Of their geometry; bounds are None where there are no rows.
    notes
        More of the file's metadata.
    """
    schema = schema.with_metadata(geo_metadata(bounds, crs) | dict(notes or {}))
    # Ids, numbers and geometries hardly repeat: to look for it takes as long as to compress them.
    repeating = [field.name for field in schema if _repeats(field)]
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": repeating}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for group in groups:
            writer.write_table(group.replace_schema_metadata(schema.metadata), len(group))


def _repeats(field: pa.Field) -> bool:
    kind = field.type
    return pa.types.is_timestamp(kind) or (
        pa.types.is_string(kind) and field.name != "detection_id"
    )


def bounds_of(table: pa.Table) -> list[float] | None:
    """Bounds (xmin, ymin, xmax, ymax) of rows by their `bbox` column; None without rows."""
    if not table.num_rows:
        return None
    box = pc.struct_field  # type: ignore[attr-defined]
    ends = (pc.min, pc.min, pc.max, pc.max)  # type: ignore[attr-defined]
    return [end(box(table["bbox"], n)).as_py() for end, n in zip(ends, EDGES, strict=True)]


def geo_metadata(bounds: Iterable[float] | None, crs: str | None) -> dict[bytes, bytes]:
    """GeoParquet's metadata for rows within `bounds` (xmin, ymin, xmax, ymax); None without rows."""
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [] if bounds is None else _geometry_types(bounds, crs),
        "crs": None if crs is None else CRS.from_user_input(crs).to_json_dict(),
        "covering": {"bbox": {c: ["bbox", c] for c in EDGES}},
    }
    if bounds is not None:
        geometry["bbox"] = [float(value) for value in bounds]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return {b"geo": json.dumps(geo).encode()}


def _geometry_types(bounds: Iterable[float], crs: str | None) -> list[str]:
    """Boxes are polygons; if they lie all over the world, some may be cut at the antimeridian."""
    west, _, east, _ = bounds
    wide = crs is not None and torn(np.array([[west, east]]), CRS.from_user_input(crs)).any()
    return ["MultiPolygon", "Polygon"] if wide else ["Polygon"]
