"""Throughput against the number of detector actors: 1 to 64 on 1 to 8 nodes, on one machine.

Nodes, coordinators, readers, queues, object stores and commits are the real ones; nodes' GPUs are
pretended, and the detector (`_sleeper.py`) waits as long as a GPU would work. The scenes are one local
raster of one grey, over and over, so that decoding it is nearly free: reading from a bucket, decoding
photographs and crop models are left out. The machine's own cores carry all, so CPU time is told by
process: where it reaches the cores, they are what is measured, not the scheduling.

`python -m benchmarks.scaling 1 2 4` takes these numbers of detectors, and writes a file of its own.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from benchmarks._finish import end_of_run, rows_on_disk
from benchmarks._meters import Steady, cpu_seconds
from benchmarks._results import save
from benchmarks._sleeper import UNIT_S
from geosweep.catalog import open_storage
from geosweep.pipeline import Job
from geosweep.pipeline.driver import RayEngine
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.runner import claim
from geosweep.pipeline.settings import Settings
from tests.rasters import write_raster

BATCH, READERS, DETECTORS_A_NODE = 32, 2, 8
SIDE, WINDOWS = 8380, 22**2
"""Of a scene: the mean of 10^8 windows in 200,000 scenes."""


class Kind(NamedTuple):
    """A GPU to be pretended, and what is found.

    Parameters
    ----------
    value
        Of the first band: how long a window takes, in `UNIT_S`.
    boxes
        In each window; the value of the second band.
    seconds
        About how long a measurement takes if nothing but the detectors limits it.
    """

    value: int
    boxes: int
    seconds: int

    @property
    def rate(self) -> float:
        """Windows per second of one detector."""
        return 1 / (UNIT_S * self.value)


KINDS = {
    "400/s": Kind(2, 30, 15),
    "400/s, none found": Kind(2, 0, 15),
    "400/s, 100 found": Kind(2, 100, 15),
    "40/s": Kind(20, 30, 20),
    "10/s": Kind(80, 30, 35),
}
COUNTS = {
    1: ("400/s", "40/s", "10/s"),
    2: ("400/s", "400/s, none found", "400/s, 100 found"),
    4: ("400/s", "40/s"),
    8: ("400/s", "40/s"),
    16: ("40/s", "10/s"),
    24: ("40/s",),
    32: ("10/s",),
    64: ("10/s",),
}
STORE_BYTES = 1 << 30
MB_A_DETECTOR, MB_A_NODE = 130, 1300
"""Memory to have before a size is tried; a detector without torch has 118 MB of its own (measured)."""


@dataclass
class Row:
    """What was measured with so many detectors of one kind."""

    gpu: str
    detectors: int
    coordinators: int
    scenes: int
    windows: int
    seconds: float
    windows_per_s: float
    efficiency: float | None
    busy: float
    cores_used: float
    cores_of_others: float
    driver_share: float
    driver_cpu_s_per_scene: float
    write_s_per_scene: float
    cpu_s_per_1000_windows: dict[str, float]


def write_scenes(folder: Path) -> None:
    """One raster for each kind."""
    for name, kind in KINDS.items():
        data = np.zeros((3, SIDE, SIDE), np.uint8)
        data[0], data[1], data[2] = kind.value, kind.boxes, 100
        path = folder / f"{slug(name)}.tif"
        write_raster(path, data, driver="COG", compress="ZSTD", blocksize=512, overviews="NONE")


def slug(name: str) -> str:
    """The name of a kind, fit for files."""
    return name.replace("/", "-").replace(", ", "-").replace(" ", "-")


def job_of(folder: Path, detectors: int, gpu: str, scenes: int) -> Job:
    """A job over so many items that are one raster."""
    name = f"{slug(gpu)}-{detectors}"
    features = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"{name}-{number}",
            "geometry": None,
            "properties": {"datetime": "2022-07-01T00:00:00Z"},
            "links": [],
            "assets": {"visual": {"href": str(folder / f"{slug(gpu)}.tif")}},
        }
        for number in range(scenes)
    ]
    items = folder / f"{name}.json"
    items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return Job.from_dict(
        {
            "source": {"stac": str(items), "asset": "visual"},
            "detector": {"model": "benchmarks._sleeper:sleeper", "batch_size": BATCH},
            "merge": {"scenes": "none"},
            "output": {"path": str(folder / f"out-{detectors}")},
            "cluster": {"detectors": min(detectors, DETECTORS_A_NODE), "readers": READERS},
        }
    )


def measure(engine: RayEngine, steady: Steady, folder: Path, detectors: int, gpu: str) -> Row:
    """Sweep scenes with an engine that stands, and take its figures."""
    nodes = max(1, detectors // DETECTORS_A_NODE)
    in_flight = nodes * (READERS + 1)
    rate = detectors * KINDS[gpu].rate
    # No more than two cores can carry, nor fewer than fill the seats twice, but one of a slow GPU's.
    wanted = round(min(rate, 1500) * KINDS[gpu].seconds / WINDOWS)
    scenes = max(wanted, 2 * in_flight if detectors > 2 else 1)
    job = job_of(folder, detectors, gpu, scenes)
    plan = ScenePlan(job, settle_plan(job, open_storage(folder / f"plan-{slug(gpu)}-{detectors}")))
    steady.seen = []
    before, machine, start = cpu_seconds(), psutil.cpu_times(), time.perf_counter()
    ends, writing = [], 0.0
    for outcome in engine.sweep(plan.tasks()):
        assert outcome.status != "failed", outcome.error
        writing += outcome.seconds["write"]
        ends.append(time.perf_counter())
    spent, now = cpu_seconds() - before, psutil.cpu_times()
    seconds = ends[-1] - start
    elapsed = time.perf_counter() - start
    windows = scenes * WINDOWS
    per_second, busy = steady.between(0.2, 0.75)
    busy_cores = (sum(now) - now.idle - now.iowait - now.guest) - (
        sum(machine) - machine.idle - machine.iowait - machine.guest
    )
    return Row(
        gpu=gpu,
        detectors=detectors,
        coordinators=nodes,
        scenes=scenes,
        windows=windows,
        seconds=seconds,
        windows_per_s=per_second,
        efficiency=None,
        busy=min(busy, 1.0),
        cores_used=spent.total() / elapsed,
        cores_of_others=busy_cores / elapsed - spent.total() / elapsed,
        driver_share=spent["driver"] / elapsed,
        driver_cpu_s_per_scene=spent["driver"] / scenes,
        write_s_per_scene=writing / scenes,
        cpu_s_per_1000_windows={part: 1000 * used / windows for part, used in spent.items()},
    )


def with_detectors(folder: Path, detectors: int) -> list[Row]:
    """Measure one number of detectors, with all kinds of GPU."""
    kinds = COUNTS[detectors]
    job = job_of(folder, detectors, kinds[0], 1)
    settings, storage, steady = Settings.resolve(job), open_storage(job.output.path), Steady()
    claim(storage, settings, overwrite=False)
    with RayEngine(settings, storage, on_activity=steady, keep_idle=True) as engine:
        return [measure(engine, steady, folder, detectors, gpu) for gpu in kinds]


def main(counts: list[int] | None = None) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    rows: list[Row] = []
    content: dict[str, Any] = {
        "ray": ray.__version__,
        "cores": os.cpu_count(),
        "batch": BATCH,
        "window_px": 400,
        "windows_per_scene": WINDOWS,
        "kinds": {name: kind._asdict() for name, kind in KINDS.items()},
        "skipped": {},
    }
    with tempfile.TemporaryDirectory(prefix="geosweep-scaling-") as name:
        folder = Path(name)
        content["records"] = end_of_run(folder / "records")
        write_scenes(folder)
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        try:
            for detectors in counts or COUNTS:
                if lacking := _room_for(cluster, detectors):
                    content["skipped"][detectors] = lacking
                else:
                    rows += with_detectors(folder, detectors)
                    content["rows_on_disk"] = rows_on_disk(folder / f"out-{detectors}")
                if rows:
                    _save(content, rows, counts)
        finally:
            ray.shutdown()
            cluster.shutdown()
    console = Console()
    console.print(_table(rows))
    console.print(
        "eff.: windows/s over so many times those of one; busy: share of the detectors' time; cores: CPU "
        "time over wall time, all processes; driver: its part of a core; coord.: CPU-seconds of "
        f"coordinators for 1000 windows. Left out: {content['skipped'] or 'nothing'}."
    )


def _room_for(cluster: Cluster, detectors: int) -> str | None:
    """Add the nodes that so many detectors need, or say why not."""
    there = len(cluster.worker_nodes)
    wanted = max(1, detectors // DETECTORS_A_NODE)
    need = MB_A_DETECTOR * detectors + MB_A_NODE * wanted
    have = psutil.virtual_memory().available >> 20
    if have < need:
        return f"needs {need} MB of memory, {have} MB are free"
    for _ in range(wanted - there):
        cluster.add_node(num_cpus=8, num_gpus=DETECTORS_A_NODE, object_store_memory=STORE_BYTES)
    return None


def _save(content: dict[str, Any], rows: list[Row], counts: list[int] | None) -> None:
    _compare(rows)
    name = "-".join(["scaling", *map(str, counts or ())])
    everything = content | {"rows": [asdict(row) for row in rows]}
    save(name, everything)


def _compare(rows: list[Row]) -> None:
    """Efficiency: throughput over so many times that of a single detector of the kind."""
    single = {row.gpu: row.windows_per_s for row in rows if row.detectors == 1}
    for row in rows:
        alone = single.get(row.gpu.partition(",")[0])
        row.efficiency = row.windows_per_s / row.detectors / alone if alone else None


def _table(rows: list[Row]) -> Table:
    table = Table(title=f"windows of 400 px in batches of {BATCH}; {os.cpu_count()} cores for all")
    columns = ("a GPU", "GPUs", "nodes", "windows/s", "eff.", "busy", "cores", "driver", "coord.")
    for column in columns:
        table.add_column(column, justify="right")
    for row in sorted(rows, key=lambda row: (list(KINDS).index(row.gpu), row.detectors)):
        table.add_row(
            row.gpu,
            str(row.detectors),
            str(row.coordinators),
            f"{row.windows_per_s:,.0f}",
            "" if row.efficiency is None else f"{row.efficiency:.2f}",
            f"{row.busy:.2f}",
            f"{row.cores_used:.2f}",
            f"{row.driver_share:.3f}",
            f"{row.cpu_s_per_1000_windows['coordinators']:.2f}",
        )
    return table


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or None)
