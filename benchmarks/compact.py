"""What `geosweep catalog compact` makes of many small files, what a query reads before and after, and memory.

`python -m benchmarks.compact ROWS` takes another number of rows than 1,000,000.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geosweep.catalog import (
    Records,
    Scene,
    SceneRecord,
    Storage,
    open_storage,
    write_collection,
    write_snapshot,
)
from geosweep.pipeline.geofile import bounds_of, write_geoparquet
from geosweep.pipeline.rows import CropColumns, RowSchema

SCENES = 2000
SIDE_DEG = 0.01
TARGET = 64 << 20
SCHEMA = RowSchema(("Tree",), "m@1", (CropColumns("cropmodel", ("Alive", "Dead")),), "EPSG:4326")

_CHILD = """
import resource, sys, time
from geosweep.catalog import open_storage, read_collection
from geosweep.pipeline import compaction, _mergedfile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
storage = open_storage(sys.argv[1])
start = time.process_time()
report = compaction.compact(storage, read_collection(storage), target_size=int(sys.argv[2]))
cpu = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(report.written, report.rows, report.bytes_before, report.bytes_after, before, peak, cpu)
"""


def scene_table(number: int, count: int, rng: np.random.Generator) -> tuple[Scene, pa.Table]:
    """A scene on a lattice, with boxes at random places in it."""
    row, column = divmod(number, round(SCENES**0.5))
    west, south = -110 + column * SIDE_DEG, 40 + row * SIDE_DEG
    name = f"scene-{number:07d}"
    corner = rng.uniform(0, SIDE_DEG * 0.99, (count, 2)) + np.array([west, south])
    bounds = np.column_stack([corner, corner + rng.uniform(2e-5, 9e-5, (count, 2))])
    pixels = (bounds * 1e5 % 10_000).astype(np.float32)
    score = rng.uniform(0.3, 1, count).astype(np.float32)
    text = rng.bytes(12 * count).hex()
    columns = {
        "detection_id": [text[start : start + 24] for start in range(0, 24 * count, 24)],
        "scene_id": [name] * count,
        "image_path": [f"s3://bucket/imagery/{name}.tif"] * count,
        "datetime": [datetime(2022, 6, 1, tzinfo=UTC)] * count,
        **{edge: pixels[:, i] for i, edge in enumerate(("xmin", "ymin", "xmax", "ymax"))},
        "label": ["Tree"] * count,
        "score": score,
        "cropmodel_label": np.where(score > 0.5, "Alive", "Dead"),
        "cropmodel_score": score[::-1].copy(),
        "area_m2": score * 50,
        "geometry": shapely.to_wkb(shapely.box(*bounds.T)),
    }
    *plain, box = SCHEMA.arrow
    arrays = [pa.array(columns[field.name], field.type) for field in plain]
    arrays.append(pa.StructArray.from_arrays(list(bounds.T), fields=list(box.type)))
    outline = shapely.box(west, south, west + SIDE_DEG, south + SIDE_DEG)
    scene = Scene(name, f"s3://bucket/imagery/{name}.tif", name, footprint=outline)
    return scene, pa.Table.from_arrays(arrays, schema=SCHEMA.arrow)


def make_output(folder: Path, rows: int) -> Storage:
    """An output of as many scenes as ever, a file each."""
    storage = open_storage(folder)
    write_collection(
        storage,
        collection_id="bench",
        description="made up",
        fingerprint="f" * 16,
        job={"output": {"crs": "EPSG:4326"}},
        columns=SCHEMA.describe(),
        models={"m": "1"},
    )
    records, rng = Records(storage), np.random.default_rng(1)
    (folder / "data").mkdir()
    for number in range(SCENES):
        scene, table = scene_table(number, rows // SCENES, rng)
        key = f"data/{scene.id}-v1.parquet"
        bounds = bounds_of(table)
        write_geoparquet([table], folder / key, table.schema, crs=SCHEMA.crs, bounds=bounds)
        record = SceneRecord(
            scene=scene,
            status="succeeded",
            version="v1",
            fingerprint="f" * 16,
            counts={"windows": 1, "windows_processed": 1, "detections": table.num_rows},
            timings={},
            data=key,
            rows=table.num_rows,
            created=datetime.now(UTC),
            data_size=(folder / key).stat().st_size,
        )
        records.commit(record, replace=True)
    write_snapshot(storage)
    return storage


def query(folder: Path, side_deg: float = 0.05) -> tuple[int, int, int, float]:
    """Files, row groups that a box overlaps by their statistics, rows and MB in those."""
    west, south = -110 + 0.1234, 40 + 0.1234
    east, north = west + side_deg, south + side_deg
    files = groups = rows = 0
    size = 0
    for path in (folder / "data").rglob("*.parquet"):
        files += 1
        metadata = pq.read_metadata(path)
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            stats = {
                group.column(i).path_in_schema: group.column(i).statistics
                for i in range(group.num_columns)
            }
            if (
                stats["bbox.xmin"].min <= east
                and stats["bbox.xmax"].max >= west
                and stats["bbox.ymin"].min <= north
                and stats["bbox.ymax"].max >= south
            ):
                groups += 1
                rows += group.num_rows
                size += sum(group.column(i).total_compressed_size for i in range(group.num_columns))
    return files, groups, rows, size / 1e6


def main(rows: int = 1_000_000) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_output(folder, rows)
        before = query(folder)
        start = perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, name, str(TARGET)],
            check=True,
            capture_output=True,
            text=True,
        )
        seconds = perf_counter() - start
        after = query(folder)
        *numbers, cpu = done.stdout.split()
        written, moved, was, now, idle, peak = map(int, numbers)
    print(f"{moved:,} rows of {SCENES:,} scenes, target {TARGET >> 20} MiB")
    print(f"{'':28}{'before':>12}{'after':>12}")
    print(f"{'data files':28}{SCENES:>12,}{written:>12,}")
    print(f"{'MB':28}{was / 1e6:>12,.0f}{now / 1e6:>12,.0f}")
    names = ("files to open", "row groups to read", "rows in them", "MB in them")
    for what, one, other in zip(names, before, after, strict=True):
        print(f"{'0.05° box: ' + what:28}{one:>12,.4g}{other:>12,.4g}")
    print(f"{seconds:.0f} s, {float(cpu):.1f} of CPU")
    print(f"peak memory {peak / 1024:.0f} MB, {idle / 1024:.0f} of them imports")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
