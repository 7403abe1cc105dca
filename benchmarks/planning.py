"""Planning of up to 10⁶ scenes with 10⁸ windows, and taking up a run again that has 200,000 records.

Scenes lie on UTM grids as Sentinel-2's do, each overlapping its eight neighbours, but of pixels of 1 m,
since the Earth has not room for a million of the real ones: 10,980 px every 10 km, which makes 841
windows, or 3,820 px every 3,480 m, which makes 100. Each size is measured in a process of its own.
Nothing is opened but the items: they say all.
"""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from affine import Affine
from pyproj import Transformer
from rich.console import Console
from rich.table import Table

from benchmarks._results import save
from geosweep.catalog import Scene, SceneRecord, open_storage, to_item
from geosweep.catalog.ledger import Ledger
from geosweep.pipeline import Job
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.windows import WindowGrid

WIDE, NARROW = (10_980, 10_000), (3_820, 3_480)
"""Pixels of a scene, and metres from one to the next."""
PLANS = (
    (10_000, WIDE, "latest"),
    (100_000, WIDE, "latest"),
    (1_000_000, NARROW, "latest"),
    (1_000_000, NARROW, "none"),
)
RECORDS = 200_000
ACROSS, UP, FIRST_ZONE = 48, 500, 10
BATCH = 12_000  # tiles of a quarter of a zone
SAMPLE = 6000


def write_items(path: Path, count: int, layout: tuple[int, int]) -> None:
    """Write a stac-geoparquet file of items, some thousands in memory at a time."""
    writer = None
    for start in range(0, count, BATCH):
        table = _items(np.arange(start, min(start + BATCH, count)), *layout)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _items(numbers: np.ndarray, side: int, step: int) -> pa.Table:
    zone = FIRST_ZONE + numbers // (ACROSS * UP)
    assert (zone == zone[0]).all()
    code = f"EPSG:{32600 + zone[0]}"
    place = numbers % (ACROSS * UP)
    x, y = 260_000.0 + place % ACROSS * step, 20_000.0 + place // ACROSS * step
    corners = np.array([(0, 0), (side, 0), (side, -side), (0, -side), (0, 0)])
    lon, lat = Transformer.from_crs(code, "EPSG:4326", always_xy=True).transform(
        (x[:, None] + corners[:, 0]).ravel(), (y[:, None] + corners[:, 1]).ravel()
    )
    rings = np.stack([lon, lat], axis=1).reshape(-1, 5, 2)
    outlines = shapely.polygons(rings)
    days = np.random.default_rng(int(numbers[0])).integers(0, 365 * 86_400, len(numbers))
    taken = np.datetime64("2024-01-01", "us") + days.astype("timedelta64[s]")
    names = [f"T{zone[0]}_{value:07d}" for value in numbers]
    asset = pa.array(
        [
            {
                "href": f"https://example.com/{name}/visual.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["visual"],
            }
            for name in names
        ]
    )
    time_type = pa.timestamp("us", tz="UTC")
    bounds = shapely.bounds(outlines)
    return pa.table(
        {
            "type": ["Feature"] * len(names),
            "stac_version": ["1.1.0"] * len(names),
            "id": names,
            "collection": ["tiles"] * len(names),
            "assets": pa.StructArray.from_arrays([asset], ["visual"]),
            "datetime": pa.array(taken, time_type),
            "updated": pa.array(taken + np.timedelta64(1, "D"), time_type),
            "proj:code": [code] * len(names),
            "proj:shape": [[side, side]] * len(names),
            "proj:transform": [
                [1.0, 0.0, left, 0.0, -1.0, top] for left, top in zip(x, y, strict=True)
            ],
            "bbox": pa.StructArray.from_arrays(list(bounds.T), ["xmin", "ymin", "xmax", "ymax"]),
            "geometry": shapely.to_wkb(outlines).tolist(),
        }
    )


def plan_scenes(folder: Path, count: int, layout: tuple[int, int], scenes: str) -> dict[str, Any]:
    """Freeze a plan of so many scenes and take the first tasks; `scenes` is `merge.scenes`."""
    write_items(folder / "items.parquet", count, layout)
    job = Job.from_dict(
        {
            "source": {"stac": str(folder / "items.parquet"), "asset": "visual"},
            "merge": {"scenes": scenes},
            "output": {"path": str(folder / "out")},
        }
    )
    _warm_up(folder, job, layout)
    before = _reset_peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    file = settle_plan(job, open_storage(job.output.path))
    frozen = time.process_time() - cpu
    plan = ScenePlan(job, file)
    tasks = plan.tasks()
    first = next(tasks)
    ready, waited = time.process_time() - cpu, time.perf_counter() - start
    windows = taken = 0
    of_limits, of_windows = 0.0, 0.0
    last = time.process_time()
    for task in islice(tasks, min(SAMPLE, count - 1)):
        given = time.process_time()
        windows += _windows(task)
        done = time.process_time()
        of_limits, of_windows, last = of_limits + given - last, of_windows + done - given, done
        taken += 1
    assert (first.region.foreign is None) == (scenes == "none")
    a_scene = (of_limits + of_windows) / taken
    return {
        "scenes": count,
        "windows_of_a_scene": windows // taken,
        "merge.scenes": scenes,
        "frozen_cpu_s": frozen,
        "first_task_cpu_s": ready,
        "first_task_s": waited,
        "limits_cpu_us": of_limits / taken * 1e6,
        "windows_cpu_us": of_windows / taken * 1e6,
        "windows_per_cpu_s": windows / taken / a_scene,
        "all_windows_per_cpu_s": count * windows / taken / (ready + count * a_scene),
        "memory_mb": _peak_mb() - before,
        "plan_mb": (folder / "out" / "plan.parquet").stat().st_size / 1e6,
    }


def _warm_up(folder: Path, job: Job, layout: tuple[int, int]) -> None:
    """Have everything imported, so that what is measured is scenes."""
    write_items(folder / "few.parquet", 100, layout)
    few = job.model_copy(
        update={"source": job.source.model_copy(update={"stac": str(folder / "few.parquet")})}
    )
    file = settle_plan(few, open_storage(folder / "few"))
    for task in ScenePlan(few, file).tasks():
        _windows(task)


def _windows(task: Any) -> int:
    """Lay windows over a scene as a run does, without opening its raster."""
    scene = task.scene
    height, width = scene.shape
    grid = WindowGrid.cover(width, height, 400, 0.05)
    plan = task.region.plan(grid, Affine(*scene.transform), scene.crs, (1.0, 1.0))
    assert plan.count + plan.owned_elsewhere == grid.count
    return grid.count


def read_records(folder: Path, count: int) -> dict[str, Any]:
    """Read what so many records say, as a run does that goes on."""
    items = folder / "items"
    items.mkdir()
    for name, text in _records(count):
        (items / f"{name}.json").write_text(text)
    before = _reset_peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    with Ledger.read(open_storage(folder)) as ledger:
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert len(ledger) == count
    return {
        "records": count,
        "cpu_s": cpu,
        "seconds": seconds,
        "memory_mb": _peak_mb() - before,
    }


def _records(count: int) -> Iterator[tuple[str, str]]:
    moment = datetime(2024, 6, 1, tzinfo=UTC)
    names = ("", "_processed", "_skipped_nodata", "_skipped_aoi", "_skipped_owned", "_failed")
    scene = Scene(
        id="NAME",
        href="https://example.com/NAME/visual.tif",
        item_id="NAME",
        collection="tiles",
        asset="visual",
        datetime=moment,
        updated="2024-06-02T00:00:00Z",
        footprint=shapely.segmentize(shapely.box(-110.1, 44, -110, 44.1), 0.02),
        crs="EPSG:32612",
        transform=(1.0, 0.0, 5e5, 0.0, -1.0, 5e6),
        shape=(WIDE[0], WIDE[0]),
    )
    record = SceneRecord(
        scene=scene,
        status="succeeded",
        version="0123456789abcdef",
        fingerprint="fedcba9876543210",
        counts=dict.fromkeys([f"windows{name}" for name in names], 841) | {"detections": 12_345},
        timings=dict.fromkeys(("read", "detect", "crop", "classify", "merge", "write"), 1.234),
        data="data/NAME-0123456789abcdef.parquet",
        rows=12_345,
        created=moment,
        software=dict.fromkeys(("geosweep", "torch", "torchvision", "rasterio"), "1.2.3"),
        models={"detector": "0123456789abcdef"},
        data_size=1_234_567,
    )
    text = json.dumps(to_item(record, collection_id="tiles"), indent=1)
    for number in range(count):
        name = f"T{number:07d}"
        yield name, text.replace("NAME", name)


def _reset_peak_mb() -> float:
    """Resident memory of this process now, from which its peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_mb() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1e3
    raise RuntimeError(f"no {name} in /proc/self/status")


def _measured(work: str, *arguments: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="geosweep-planning-") as folder:
        return globals()[work](Path(folder), *arguments)


def main() -> None:
    # A process for each, so that no figure holds what another one left in memory.
    context = multiprocessing.get_context("spawn")
    rows = []
    for arguments in PLANS:
        with context.Pool(1) as pool:
            rows.append(pool.apply(_measured, ("plan_scenes", *arguments)))
    with context.Pool(1) as pool:
        records = pool.apply(_measured, ("read_records", RECORDS))
    table = Table(title="planning; CPU time of one core, but for the wait")
    for column in ("scenes", "windows", "merge", "frozen s", "first task s", "wait s"):
        table.add_column(column, justify="right")
    for column in ("limits µs", "windows µs", "windows/s", "with the plan", "MB"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['scenes']:,}",
            f"{row['windows_of_a_scene']}",
            row["merge.scenes"],
            f"{row['frozen_cpu_s']:.1f}",
            f"{row['first_task_cpu_s']:.1f}",
            f"{row['first_task_s']:.1f}",
            f"{row['limits_cpu_us']:.0f}",
            f"{row['windows_cpu_us']:.0f}",
            f"{row['windows_per_cpu_s']:,.0f}",
            f"{row['all_windows_per_cpu_s']:,.0f}",
            f"{row['memory_mb']:.0f}",
        )
    console = Console(width=110)
    console.print(table)
    console.print(
        f"{records['records']:,} records read in {records['cpu_s']:.1f} CPU-seconds, "
        f"{records['seconds']:.1f} s, {records['memory_mb']:.0f} MB"
    )
    versions = {"sqlite": sqlite3.sqlite_version, "pyarrow": pa.__version__}
    content = versions | {"plans": rows, "records": records}
    save("planning", content)


if __name__ == "__main__":
    main()
