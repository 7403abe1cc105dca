"""The columns of a plan: stac-geoparquet, with a few of our own."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_BOX = ("xmin", "ymin", "xmax", "ymax")
_COVERING = {"bbox": {name: ["bbox", name] for name in _BOX}}
_GEOMETRY = {"encoding": "WKB", "geometry_types": [], "covering": _COVERING}
_GEO = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": _GEOMETRY}}


@cache
def schema() -> pa.Schema:
    """The columns of a plan, which are the same for every source.

    Every scene is one item whose raster is the asset ``data``, whatever the source calls it: sources
    may name each item's asset differently, and a column for each name would have no end.
    """
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    version = [("updated", pa.string()), ("file:checksum", pa.string())]
    access = [("storage:region", pa.string()), ("storage:requester_pays", pa.bool_())]
    asset = pa.struct(
        [
            ("href", pa.string()),
            ("roles", pa.list_(pa.string())),
            *version,
            ("geosweep:stamp", pa.string()),
            *access,
        ]
    )
    other = pa.list_(pa.struct([("key", pa.string()), ("href", pa.string()), *version, *access]))
    metadata = {"geo": json.dumps(_GEO), "stac-geoparquet": json.dumps({"version": "1.0.0"})}
    return pa.schema(
        [
            ("type", pa.string()),
            ("stac_version", pa.string()),
            ("stac_extensions", pa.list_(pa.string())),
            ("id", pa.string()),
            ("collection", pa.string()),
            ("links", pa.list_(pa.struct([("href", pa.string()), ("rel", pa.string())]))),
            ("assets", pa.struct([("data", asset)])),
            ("datetime", time),
            ("start_datetime", time),
            ("end_datetime", time),
            ("updated", time),
            ("proj:code", pa.string()),
            ("proj:wkt2", pa.string()),
            ("proj:transform", pa.list_(pa.float64())),
            ("proj:shape", pa.list_(pa.int64())),
            ("geosweep:scene_id", pa.string()),
            ("geosweep:asset", pa.string()),
            ("geosweep:error", pa.string()),
            ("geosweep:datetime_unknown", pa.bool_()),
            ("geosweep:retained", pa.bool_()),
            ("geosweep:assets", other),
            ("geosweep:bands", other),
            ("bbox", pa.struct([(name, pa.float64()) for name in _BOX])),
            ("geometry", pa.binary()),
        ],
        metadata=metadata,
    )
