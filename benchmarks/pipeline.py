"""The whole pipeline on one machine against its networks alone.

A first sweep records what reaches the networks. Then, in turn: the recorded batches through the same
models in the same threads, the local engine, and the Ray engine, each over the same scenes, from the
opened model to the committed item. A figure is the median over the rounds of the networks' seconds
divided by the engine's. Ray's start-up, its models' loading and a first scene are not in it; its CPU time
is not this process's, so its wall alone is given.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._mirrored import write_mirrored
from benchmarks._results import save, setting
from geosweep.catalog import open_storage
from geosweep.pipeline import Job
from geosweep.pipeline.driver import RayEngine
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.local import LocalEngine
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.runner import claim
from geosweep.pipeline.settings import Settings

SCENES = 2
ROUNDS = 3
JOBS: dict[str, tuple[int, list[dict[str, Any]]]] = {
    "geosweep/tree": (4000, []),
    "geosweep/tree, crops by geosweep/alive-dead": (1600, [{"model": "geosweep/alive-dead"}]),
}
"""Pixels along a side of a scene, and crop models: a crop takes as long as a window."""


class Recorder:
    """A model that keeps what it is given."""

    def __init__(self, model: Any, call: str) -> None:
        self._model, self._call, self.seen = model, call, []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if name != self._call:
            return value

        def keep(inputs: Any) -> Any:
            # As the network takes them: cutting and resizing are not its work.
            ready = inputs if isinstance(inputs, np.ndarray) else self._model.prepare(inputs)
            self.seen.append(np.array(ready))
            return value(inputs)

        return keep

    def replay(self) -> None:
        """Compute all of it again."""
        compute = getattr(self._model, self._call)
        for inputs in self.seen:
            compute(inputs)


def job_of(folder: Path, crop_models: list[dict[str, Any]], name: str) -> Job:
    return Job.model_validate(
        {
            "name": "pipeline",
            "source": {"rasters": [str(folder / "scenes")]},
            "windows": {"size": 400, "overlap": 0.05},
            "detector": {"model": "geosweep/tree", "device": "cpu"},
            "crop_models": crop_models,
            "output": {"path": str(folder / name), "crs": None},
        }
    )


def timed(work: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def prepare(job: Job) -> tuple[Settings, Any, list[Any]]:
    """Resolve a job, claim its output, and list its scenes."""
    settings, storage = Settings.resolve(job), open_storage(job.output.path)
    claim(storage, settings, overwrite=False)
    return settings, storage, list(ScenePlan(job, settle_plan(job, storage)).tasks())


def sweep(engine: Any, tasks: Any) -> None:
    for outcome in engine.sweep(iter(tasks)):
        if outcome.status == "failed":
            raise RuntimeError(f"{outcome.scene_id} failed.")


def record(folder: Path, crop_models: list[dict[str, Any]]) -> list[Recorder]:
    settings, storage, tasks = prepare(job_of(folder, crop_models, "recorded"))
    engine = LocalEngine(settings, storage)
    detector = Recorder(engine._finder.detector, "detect")
    engine._finder.detector = detector  # type: ignore[assignment]
    recorders = [detector]
    for classifier in engine._classifiers.values():
        recorder = Recorder(classifier.model, "classify")
        classifier.model = recorder  # type: ignore[assignment]
        recorders.append(recorder)
    sweep(engine, tasks)
    if not all(recorder.seen for recorder in recorders):
        raise RuntimeError(
            "A model was given nothing: the recording is not where the engine looks."
        )
    return recorders


def local(folder: Path, crop_models: list[dict[str, Any]], name: str) -> dict[str, float]:
    settings, storage, tasks = prepare(job_of(folder, crop_models, name))
    engine = LocalEngine(settings, storage)
    return timed(lambda: sweep(engine, tasks))


def on_ray(
    folder: Path, crop_models: list[dict[str, Any]], name: str, between: Callable[[], object]
) -> list[dict[str, float]]:
    """Sweep all scenes but a first one, so many times, each after another measurement."""
    settings, storage, tasks = prepare(job_of(folder, crop_models, name))
    found = []
    with RayEngine(settings, storage, keep_idle=True) as engine:
        sweep(engine, islice(tasks, 1))
        for _ in range(ROUNDS):
            between()
            found.append(timed(lambda: sweep(engine, tasks)))
    return found


def measure(folder: Path, crop_models: list[dict[str, Any]]) -> dict[str, Any]:
    recorders = record(folder, crop_models)
    alone: list[dict[str, float]] = []
    in_process: list[dict[str, float]] = []

    def others() -> None:
        alone.append(timed(lambda: [recorder.replay() for recorder in recorders]))
        in_process.append(local(folder, crop_models, f"local-{len(in_process)}"))

    ray = on_ray(folder, crop_models, "ray", others)
    pairs = {"networks alone": alone, "local engine": in_process, "Ray engine": ray}
    result: dict[str, Any] = {
        name: {
            "wall_s": statistics.median(one["wall_s"] for one in measured),
            "share_wall": statistics.median(
                a["wall_s"] / one["wall_s"] for a, one in zip(alone, measured, strict=True)
            ),
        }
        for name, measured in pairs.items()
    }
    for name in ("networks alone", "local engine"):
        measured = pairs[name]
        result[name]["cpu_s"] = statistics.median(one["cpu_s"] for one in measured)
        result[name]["share_cpu"] = statistics.median(
            a["cpu_s"] / one["cpu_s"] for a, one in zip(alone, measured, strict=True)
        )
    result["windows"] = sum(len(batch) for batch in recorders[0].seen)
    result["crops"] = sum(len(batch) for recorder in recorders[1:] for batch in recorder.seen)
    return result


def main() -> None:
    results = {}
    for title, (side, crop_models) in JOBS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "scenes").mkdir()
            for number in range(SCENES):
                write_mirrored(folder / "scenes" / f"{number}.tif", side, side, compress="jpeg")
            results[title] = measure(folder, crop_models)
    console = Console(width=100)
    for title, rows in results.items():
        table = Table(title=f"{title}: {rows['windows']} windows, {rows['crops']} crops")
        for column in ("", "wall s", "share", "CPU s", "share of CPU"):
            table.add_column(column, justify="right")
        for name in ("networks alone", "local engine", "Ray engine"):
            row = rows[name]
            cpu = (f"{row['cpu_s']:.2f}", f"{row['share_cpu']:.2f}") if "cpu_s" in row else ("", "")
            table.add_row(name, f"{row['wall_s']:.2f}", f"{row['share_wall']:.2f}", *cpu)
        console.print(table)
    content = setting("torch", "ray", "rasterio") | {
        "scenes": SCENES,
        "sides": {title: side for title, (side, _) in JOBS.items()},
        "rounds": ROUNDS,
        "jobs": results,
    }
    save("pipeline", content)


if __name__ == "__main__":
    main()
