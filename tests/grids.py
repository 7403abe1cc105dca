"""Outputs with detections at given places, for tests of what counts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from geosweep.catalog import Records, Scene, SceneRecord, open_storage, write_collection
from geosweep.pipeline.geofile import write_geoparquet


def rows_at(
    x: Any,
    y: Any,
    *,
    half: float = 1e-5,
    score: Any = 0.5,
    area: Any = 4.0,
    label: Sequence[str | None] | str = "Tree",
) -> pa.Table:
    """Boxes around points, as rows with the columns that a grid reads."""
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    boxes = shapely.box(x - half, y - half, x + half, y + half)
    labels = [label] * len(x) if isinstance(label, str) else list(label)
    return pa.table(
        {
            "label": pa.array(labels, pa.string()),
            "score": pa.array(np.broadcast_to(score, len(x)), pa.float32(), from_pandas=True),
            "area_m2": pa.array(np.broadcast_to(area, len(x)), pa.float32(), from_pandas=True),
            "geometry": pa.array(shapely.to_wkb(boxes), pa.binary()),
        }
    )


def output_of(
    output: str | Path,
    tables: Iterable[pa.Table],
    *,
    crs: str | None = "EPSG:4326",
    folder: Path | None = None,
) -> str:
    """An output with one scene a day for each table; `folder` is for a file on its way to a URL."""
    storage = open_storage(output)
    write_collection(
        storage,
        collection_id="test",
        description="made by a test",
        fingerprint="f" * 16,
        job={"name": "test", "output": {"path": "out", "crs": crs}},
        columns=[("score", "float", "")],
        models={},
    )
    for number, table in enumerate(tables):
        key = f"data/s{number}-v1.parquet"
        local = (folder or Path(output)) / "rows.parquet.part"
        local.parent.mkdir(parents=True, exist_ok=True)
        shapes = shapely.from_wkb(table["geometry"].to_numpy())
        groups, bounds = ([table], shapely.total_bounds(shapes)) if len(table) else ([], None)
        write_geoparquet(groups, local, table.schema, crs=crs, bounds=bounds)
        storage.put_file(key, local)
        local.unlink()
        time = datetime(2020, 1, 1 + number % 28, tzinfo=UTC)
        record = SceneRecord(
            scene=Scene(
                id=f"s{number}", href=f"s{number}.tif", item_id=f"s{number}", datetime=time
            ),
            status="succeeded" if table.num_rows else "empty",
            version="v1",
            fingerprint="f" * 16,
            counts={},
            timings={},
            data=key,
            rows=table.num_rows,
            created=datetime(2026, 1, 1, tzinfo=UTC),
        )
        Records(storage).commit(record, replace=False)
    return str(output)
