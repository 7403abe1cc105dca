"""What it takes until a run on this machine works: Ray's processes, ours, the models, the first scene.

Each case is a run of its own, in a process of its own, with a cluster that it starts as `geosweep run`
does. CPU-seconds are those that the processes of the cluster have used when the first scene is committed;
wall times are medians, and depend on what else the machine does.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._results import save

CASES: dict[str, dict[str, Any]] = {
    "no torch": {"detector": "paint"},
    "tree": {"detector": {"model": "geosweep/tree"}},
    "tree, crop model": {
        "detector": {"model": "geosweep/tree"},
        "crop_models": [{"model": "geosweep/alive-dead"}],
    },
}
ROUNDS = 3
STEPS = ("plan", "cluster", "actors", "scene")


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Seconds of each step, and CPU-seconds of each kind of process; called in a fresh process."""
    from geosweep.actors import connect
    from geosweep.catalog import open_storage
    from geosweep.pipeline.driver import RayEngine
    from geosweep.pipeline.frozen import settle_plan
    from geosweep.pipeline.planner import ScenePlan
    from geosweep.pipeline.runner import claim
    from geosweep.pipeline.settings import Settings
    from tests.scenes import job_over, painted_scene

    raster = painted_scene(folder, 0)
    marks = [time.perf_counter()]
    job = job_over([raster], folder / "out", **CASES[case])
    settings, storage = Settings.resolve(job), open_storage(job.output.path)
    plan = settle_plan(settings.job, storage, anew=False, ask=False)
    claim(storage, settings, overwrite=False)
    marks.append(time.perf_counter())
    connection = connect(None)
    marks.append(time.perf_counter())
    with RayEngine(settings, storage) as engine:
        marks.append(time.perf_counter())
        next(iter(engine.sweep(ScenePlan(settings.job, plan).tasks())))
        marks.append(time.perf_counter())
        spent = _cpu_seconds()
    connection.close()
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return {"seconds": dict(zip(STEPS, seconds, strict=True)), "cpu": spent}


def _cpu_seconds() -> dict[str, float]:
    import psutil

    spent: Counter[str] = Counter()
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        name = process.name()
        kind = "driver" if process == me else "Ray's own"
        if name.startswith("ray::") and name not in ("ray::DashboardAgent", "ray::RuntimeEnvAgent"):
            kind = name.removeprefix("ray::")
        times = process.cpu_times()
        spent[kind] += times.user + times.system
    return {kind: round(seconds, 2) for kind, seconds in spent.items()}


def _aside(case: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gs") as folder:  # Ray's sockets need short paths
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.start", case, folder],
            env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
            | {"RAY_TMPDIR": folder},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import ray

    rounds = [{case: _aside(case) for case in CASES} for _ in range(ROUNDS)]
    rows: dict[str, Any] = {}
    for case in CASES:
        runs = [each[case] for each in rounds]
        rows[case] = {
            part: {
                name: round(statistics.median(run[part].get(name, 0.0) for run in runs), 2)
                for name in runs[0][part]
            }
            for part in ("seconds", "cpu")
        }
    content = {
        "ray": ray.__version__,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load": os.getloadavg(),
        "rounds": ROUNDS,
        "rows": rows,
    }
    save("start", content)
    for part, title in (("seconds", "seconds of wall time"), ("cpu", "CPU-seconds")):
        names = list(dict.fromkeys(name for row in rows.values() for name in row[part]))
        table = Table(title=f"until the first scene is committed: {title}")
        for column in ("run with", *names):
            table.add_column(column, justify="right", no_wrap=True)
        for case, row in rows.items():
            table.add_row(case, *(f"{row[part].get(name, 0.0):.1f}" for name in names))
        Console(width=100).print(table)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
