"""Calls of Ray, bytes in its object store and requests to an object store; for `smoke.py`."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import ray
from ray._private.internal_api import node_stats

from benchmarks._guard import Measure
from benchmarks._tap import tap
from geosweep.catalog import open_storage
from geosweep.pipeline import Job, run
from geosweep.pipeline.driver import RayEngine
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.runner import claim
from geosweep.pipeline.scene_reader import SceneTask
from geosweep.pipeline.settings import Settings
from tests.s3server import s3_server
from tests.scenes import painted_scene

SCENES, MORE_SCENES, WINDOWS, BATCH = 2, 6, 12, 4
"""What the first scenes cost is taken off: what a run costs once, whatever it does, drops out."""
_WINDOW_BYTES = 3 * 400**2
_BY_THE_CLOCK = {"Coordinator.progress"}
"""Calls whose number depends on how long a run takes."""
_REPORT_MS = 200
"""How often Ray's processes report their tasks; by default every second."""


def count_calls(folder: Path) -> list[Measure]:
    """What a further scene costs a run on Ray, by Ray's own record of tasks and objects."""
    rasters = [painted_scene(folder, number) for number in range(MORE_SCENES)]
    job = _job(rasters, folder / "out")
    settings, storage = Settings.resolve(job), open_storage(job.output.path)
    claim(storage, settings, overwrite=False)
    tasks = iter(list(ScenePlan(job, settle_plan(job, storage)).tasks()))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=256 << 20,
        _system_config={"task_events_report_interval_ms": _REPORT_MS},
    )
    try:
        with RayEngine(settings, storage, keep_idle=True) as engine:
            _sweep(engine, islice(tasks, SCENES))
            calls, stored = _calls_so_far(), _stored_so_far()
            _sweep(engine, tasks)
            calls, stored = _calls_so_far() - calls, _stored_so_far() - stored
    finally:
        ray.shutdown()
    windows = (MORE_SCENES - SCENES) * WINDOWS
    return [
        Measure("Ray: calls for a window", calls.total() / windows),
        Measure("Ray: bytes stored ÷ bytes of windows", stored / windows / _WINDOW_BYTES, 0.02),
    ]


def count_requests(folder: Path) -> list[Measure]:
    """What a further scene costs on a real S3 server, by the requests on the wire."""
    rasters = [painted_scene(folder, number) for number in range(MORE_SCENES)]
    with s3_server() as server, tap(urlsplit(server.url).port or 0) as (url, seen):
        bucket = server.make_bucket("smoke")
        with _variables(server.environment() | {"AWS_ENDPOINT_URL": url}):
            _run(rasters[:SCENES], f"{bucket}/few")
            few = Counter(seen)
            _run(rasters, f"{bucket}/many")
    each = {m: (seen[m] - 2 * few[m]) / (MORE_SCENES - SCENES) for m in (*seen, "PUT")}
    reads = sum(count for method, count in each.items() if method != "PUT")
    return [
        Measure("S3: PUTs for a scene", each["PUT"]),
        Measure("S3: other requests for a scene", reads),
    ]


def _sweep(engine: RayEngine, tasks: Iterable[SceneTask]) -> None:
    for outcome in engine.sweep(tasks):
        assert outcome.status == "succeeded", outcome


def _calls_so_far() -> Counter[str]:
    """Calls of each kind, when the processes have reported all."""
    before, now = None, _calls_reported()
    while now != before:
        time.sleep(10 * _REPORT_MS / 1000)
        before, now = now, _calls_reported()
    return now


def _calls_reported() -> Counter[str]:
    kinds = (event["cat"].partition("task::")[2] for event in ray.timeline())
    return Counter(kind for kind in kinds if kind and kind not in _BY_THE_CLOCK)


def _stored_so_far() -> int:
    node = ray.nodes()[0]
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
    return stats.store_stats.cumulative_created_bytes


def _run(rasters: list[Path], output: str) -> None:
    counts = run(_job(rasters, output), engine="local", progress=False).counts
    assert counts["succeeded"] == len(rasters), counts
    assert counts["windows"] == WINDOWS * len(rasters), counts


def _job(rasters: list[Path], output: str | Path) -> Job:
    return Job.from_dict(
        {
            "source": {"rasters": [str(path) for path in rasters]},
            "detector": {"model": "benchmarks._lattice:lattice", "batch_size": BATCH},
            "crop_models": [{"model": "tests.cropmodels:tiny"}],
            "merge": {"scenes": "none"},
            "output": {"path": str(output)},
            "cluster": {"readers": 1, "detectors": 1, "croppers": 1, "scenes_in_flight": 2},
        }
    )


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for a block, and no others of AWS."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(before)
