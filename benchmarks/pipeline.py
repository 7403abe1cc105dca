"""The whole pipeline on one machine against its networks alone.

A first sweep records what reaches the networks. Then, in turn: the recorded batches through the same
models in the same threads, every block of the rasters decoded once by GDAL and nothing done with it, the
local engine, and the Ray engine, each over the same scenes, from the opened model to the committed item. A
share is the median over the rounds of the networks' seconds divided by the engine's. The ceiling is what
decoding would leave of it if there were nothing else. Ray's start-up, its models' loading and a first
scene are not in it; its CPU time is that of all its processes and of the driver.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._meters import cpu_seconds
from benchmarks._mirrored import write_mirrored
from benchmarks._reading import decode_blocks
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


class Case(NamedTuple):
    """Scenes of so many pixels along a side, how they are stored, and crop models."""

    side: int
    stored: dict[str, Any]
    crop_models: list[dict[str, Any]]


JPEG = {"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 85}
"""As GDAL's COG driver stores RGB."""
ZSTD = {"compress": "zstd", "predictor": 2}
CASES = {
    "geosweep/tree, JPEG": Case(4000, JPEG, []),
    "geosweep/tree, ZSTD": Case(4000, ZSTD, []),
    # A crop takes as long as a window.
    "geosweep/tree and crops, JPEG": Case(1600, JPEG, [{"model": "geosweep/alive-dead"}]),
}
WHO = ("networks alone", "decoding alone", "local engine", "Ray engine")


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
    """Wall and CPU time of some work in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def timed_on_ray(work: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU time of some work in all of the cluster's processes, and by what they are."""
    wall, before = time.perf_counter(), cpu_seconds()
    work()
    wall = time.perf_counter() - wall
    spent = cpu_seconds()
    spent.subtract(before)
    return {"wall_s": wall, "cpu_s": spent.total()} | {f"cpu_s, {k}": v for k, v in spent.items()}


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


def decode(folder: Path) -> None:
    """Every block once, with as many threads as a scene's reader has."""
    for path in sorted((folder / "scenes").iterdir()):
        decode_blocks(str(path), 2)


def on_ray(
    folder: Path, crop_models: list[dict[str, Any]], name: str, between: Callable[[], object]
) -> list[dict[str, float]]:
    """Sweep all scenes, so many times, each after another measurement; a first one comes before."""
    settings, storage, tasks = prepare(job_of(folder, crop_models, name))
    found = []
    with RayEngine(settings, storage, keep_idle=True) as engine:
        sweep(engine, islice(tasks, 1))
        for _ in range(ROUNDS):
            between()
            found.append(timed_on_ray(lambda: sweep(engine, tasks)))
    return found


def measure(folder: Path, crop_models: list[dict[str, Any]]) -> dict[str, Any]:
    recorders = record(folder, crop_models)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in WHO}

    def others() -> None:
        alone = timed(lambda: [recorder.replay() for recorder in recorders])
        measured["networks alone"].append(alone)
        measured["decoding alone"].append(timed(lambda: decode(folder)))
        output = f"local-{len(measured['local engine'])}"
        measured["local engine"].append(local(folder, crop_models, output))

    measured["Ray engine"] = on_ray(folder, crop_models, "ray", others)
    alone = measured["networks alone"]

    def median_share(of: list[dict[str, float]], what: str) -> float:
        return statistics.median(a[what] / one[what] for a, one in zip(alone, of, strict=True))

    result: dict[str, Any] = {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        | {f"share_{what}": median_share(runs, f"{what}_s") for what in ("wall", "cpu")}
        for name, runs in measured.items()
    }
    result["ceiling"] = statistics.median(
        a["cpu_s"] / (a["cpu_s"] + d["cpu_s"])
        for a, d in zip(alone, measured["decoding alone"], strict=True)
    )
    result["windows"] = sum(len(batch) for batch in recorders[0].seen)
    result["crops"] = sum(len(batch) for recorder in recorders[1:] for batch in recorder.seen)
    return result


def main() -> None:
    results = {}
    # Ray's sockets need short paths.
    with tempfile.TemporaryDirectory(prefix="gs") as temporary:
        for number, (title, case) in enumerate(CASES.items()):
            folder = Path(temporary, str(number))
            (folder / "scenes").mkdir(parents=True)
            for scene in range(SCENES):
                path = folder / "scenes" / f"{scene}.tif"
                write_mirrored(path, case.side, case.side, **case.stored)
            results[title] = measure(folder, case.crop_models)
    console = Console(width=100)
    for title, rows in results.items():
        console.print(_table(title, rows))
    content = setting("torch", "ray", "rasterio") | {
        "scenes": SCENES,
        "cases": {title: case._asdict() for title, case in CASES.items()},
        "rounds": ROUNDS,
        "jobs": results,
    }
    save("pipeline", content)


def _table(title: str, rows: dict[str, Any]) -> Table:
    counts = f"{rows['windows']} windows, {rows['crops']} crops"
    table = Table(title=f"{title}: {counts}; decoding leaves {rows['ceiling']:.3f}")
    for column in ("", "wall s", "share", "CPU s", "share of CPU"):
        table.add_column(column, justify="right")
    for name in WHO:
        row = rows[name]
        shares = [f"{row[f'share_{what}']:.3f}" for what in ("wall", "cpu")]
        if name == "decoding alone":
            shares = ["", ""]
        table.add_row(name, f"{row['wall_s']:.2f}", shares[0], f"{row['cpu_s']:.2f}", shares[1])
    return table


if __name__ == "__main__":
    main()
