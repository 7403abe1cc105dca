"""Scenes that one process writes in a second, with one thread and with several.

What is written is what a coordinator writes: rows as GeoParquet, then the record, put if absent. To a
folder, to a real S3 server on this machine, and to the same with waits of so many milliseconds before
each put, as a server has that is elsewhere. One thread and several take turns, and the figure is the
median ratio of scenes per second.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rasterio.transform import from_origin
from rich.console import Console
from rich.table import Table

from benchmarks._results import save
from geosweep.catalog import Scene, open_storage
from geosweep.catalog.collection import write_collection
from geosweep.pipeline import Job
from geosweep.pipeline.collect import SceneDetections
from geosweep.pipeline.commit import Committer
from geosweep.pipeline.scene_reader import SceneHeader, SceneTask
from geosweep.pipeline.settings import ModelFace, Settings
from geosweep.pipeline.windows import WindowGrid
from tests.s3server import s3_server, weed_works

SIDE = 8380
ROWS = (1_000, 14_520)
"""Of a scene: 2 and 30 for each of its 484 windows."""
THREADS = (1, 2, 4, 8)
SCENES, ROUNDS = 16, 3
LATENCIES_MS = (0, 50)
HEADER = SceneHeader(
    grid=WindowGrid.cover(SIDE, SIDE, 400, 0.05),
    scale=(1.0, 1.0),
    model_size=None,
    transform=from_origin(500_000, 4_978_000, 0.6, 0.6),
    crs="EPSG:32612",
    size=(SIDE, SIDE),
    outside_aoi=0,
    owned_elsewhere=0,
)


@dataclass
class Row:
    """What so many threads did, against one."""

    storage: str
    rows: int
    threads: int
    scenes_per_s: float
    ratio: float
    cpu_s_per_scene: float


class _Distant:
    """A storage that answers puts so much later."""

    def __init__(self, storage: Any, seconds: float) -> None:
        self._storage, self._seconds = storage, seconds

    def __getattr__(self, name: str) -> Any:
        if name.startswith("put"):
            time.sleep(self._seconds)
        return getattr(self._storage, name)


def detections(rows: int) -> SceneDetections:
    """So many boxes of 20 px, anywhere."""
    rng = np.random.default_rng(rows)
    start = rng.uniform(0, SIDE - 20, (rows, 2)).astype(np.float32)
    return SceneDetections(
        np.hstack([start, start + 20]),
        np.zeros(rows, np.int64),
        rng.uniform(0.3, 1, rows).astype(np.float32),
        {},
        {"windows": 484, "windows_processed": 484, "detections": rows},
    )


@contextmanager
def storages(folder: Path) -> Iterator[dict[str, tuple[str, float]]]:
    """Where to write, and how much later it answers, by name."""
    found = {"folder": (str(folder / "disk"), 0.0)}
    with ExitStack() as stack:
        works, reason = weed_works()
        if works:
            server = stack.enter_context(s3_server())
            os.environ |= server.environment()
            bucket = server.make_bucket("writing")
            found |= {f"S3 + {ms} ms": (f"{bucket}/{ms}", ms / 1000) for ms in LATENCIES_MS}
        else:
            print(f"S3 is left out: {reason}.", file=sys.stderr)
        yield found


def measure(place: str, wait: float, found: SceneDetections, threads: int) -> tuple[float, float]:
    """Scenes per second, and CPU-seconds for each, in an output of its own."""
    job = Job.from_dict({"source": {"stac": "a.json"}, "output": {"path": place}})
    settings = Settings.build(job, ModelFace("m", "1", ("tree",)), {})
    storage = open_storage(place)
    write_collection(
        storage,
        collection_id="writing",
        description="writing",
        fingerprint=settings.fingerprint,
        job={},
        columns=settings.schema.describe(),
        models=settings.models,
    )
    committer = Committer(_Distant(storage, wait), settings)  # type: ignore[arg-type]
    tasks = [SceneTask(Scene(f"s{number}", "a.tif", f"s{number}")) for number in range(SCENES)]
    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        outcomes = list(pool.map(lambda task: committer.succeed(task, HEADER, found, {}), tasks))
    seconds, spent = time.perf_counter() - start, time.process_time() - cpu
    assert all(outcome.status == "succeeded" for outcome in outcomes)
    return SCENES / seconds, spent / SCENES


def main() -> None:
    results: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="geosweep-writing-") as name,
        storages(Path(name)) as to,
    ):
        fresh = count()
        for where, (place, wait) in to.items():
            for rows in ROWS:
                found = detections(rows)
                rounds = [
                    {n: measure(f"{place}-{next(fresh)}", wait, found, n) for n in THREADS}
                    for _ in range(ROUNDS)
                ]
                for n in THREADS:
                    speeds = [one[n][0] for one in rounds]
                    ratios = [one[n][0] / one[1][0] for one in rounds]
                    cpu = statistics.median(one[n][1] for one in rounds)
                    speed, ratio = statistics.median(speeds), statistics.median(ratios)
                    results.append(Row(where, rows, n, speed, ratio, cpu))
    content = {
        "pyarrow": pa.__version__,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "scenes": SCENES,
        "rounds": ROUNDS,
        "rows": [asdict(row) for row in results],
    }
    save("writing", content)
    Console().print(_table(results))


def _table(results: list[Row]) -> Table:
    table = Table(title=f"scenes written by one process on {os.cpu_count()} cores")
    for column in ("to", "rows", "threads", "scenes/s", "to one thread", "CPU-s a scene"):
        table.add_column(column, justify="right")
    for row in results:
        table.add_row(
            row.storage,
            f"{row.rows:,}",
            str(row.threads),
            f"{row.scenes_per_s:.1f}",
            f"{row.ratio:.2f}",
            f"{row.cpu_s_per_scene:.3f}",
        )
    return table


if __name__ == "__main__":
    main()
