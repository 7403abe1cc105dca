"""A GPU under detectors and a crop classifier: how near to what its convolutions alone could do.

For each detector, windows of 400 px a second: the network's convolutions on batches that lie ready on the
device, by precision and compiler (the best of them is the ceiling); our `detect` from uint8 in host
memory; the local engine from a COG on disk to committed GeoParquet; and, for the same RetinaNet weights,
DeepForest's `predict_tile`. Square kilometres an hour follow from the ground that a window adds (5 %
overlap); ORNL's figure is 3,360 for one GPU at 1 m. Crops a second likewise, of 224 px.

Without a GPU it says so and measures nothing; `BENCH_DEVICE=cpu` goes through all of it with a few
windows, to see that it works.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import backends
from benchmarks._mirrored import write_mirrored
from benchmarks._results import save, setting
from benchmarks.pipeline import prepare, sweep
from geosweep.models import CropModel, load_crop_model, load_detector
from geosweep.models._together import Together
from geosweep.pipeline import Job
from geosweep.pipeline.local import LocalEngine
from geosweep.pipeline.windows import WindowGrid

DEVICE = os.environ.get("BENCH_DEVICE", "cuda")
TRIAL = DEVICE == "cpu"
SECONDS = 0.0 if TRIAL else 4.0
SIDE = 800 if TRIAL else 10_000
BATCHES = (2,) if TRIAL else (8, 32, 128)
SIZE, OVERLAP = 400, 0.05
GSDS = (0.1, 0.3, 1.0)
ORNL_KM2_H = 3_360
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    **({} if TRIAL else {"fp16": {"precision": "fp16"}}),
    **({} if TRIAL else {"bf16, compiled": {"precision": "bf16", "backend": "compile"}}),
}


def per_second(work: Callable[[], object], number: int) -> float:
    """How many things a second, `number` of them in a call; a first call isn't counted."""
    work()
    _wait()
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < SECONDS:
        work()
        calls += 1
    _wait()
    return calls * number / (time.perf_counter() - start)


def _wait() -> None:
    if DEVICE != "cpu":
        torch.cuda.synchronize()


@contextlib.contextmanager
def busy() -> Iterator[list[float]]:
    """Collects the GPU's busy share in percent, as the driver tells it five times a second."""
    shares: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None or TRIAL:
        yield shares
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen([program, *query], stdout=subprocess.PIPE, text=True) as process:
        yield shares
        process.terminate()
        assert process.stdout is not None
        shares += [float(line) for line in process.stdout.read().split() if line.isdigit()]


def windows(number: int) -> np.ndarray:
    """(N, 3, 400, 400) of real pixels."""
    return np.concatenate([backends.windows(4)] * -(-number // 4))[:number]


def convolutions(model: str, batch: int) -> dict[str, float]:
    """Windows a second of the network up to logits and offsets, by setting."""
    found = {}
    for name, options in SETTINGS.items():
        detector: Any = load_detector(model, device=DEVICE, **options)
        network = detector.network
        images = torch.from_numpy(windows(batch)).to(DEVICE).float() / 255
        with torch.inference_mode(), detector._precision():
            ready = Together(network)._prepared(images)[0]
            found[name] = per_second(
                lambda net=network, x=ready: net.head(list(net.backbone(x).values())), batch
            )
    return found


def from_memory(model: str, batch: int) -> dict[str, float]:
    """Windows a second of `detect`, by setting."""
    images, found = windows(batch), {}
    for name, options in SETTINGS.items():
        detector = load_detector(model, device=DEVICE, **options)
        found[name] = per_second(lambda one=detector: one.detect(images), batch)
    return found


def from_disk(model: str, batch: int, folder: Path) -> dict[str, float]:
    """Windows a second of the local engine, and how busy the GPU was; a first scene isn't counted."""
    job = Job.model_validate(
        {
            "name": "gpu",
            "source": {"rasters": [str(folder / "scenes")]},
            "windows": {"size": SIZE, "overlap": OVERLAP},
            "detector": {"model": model, "device": DEVICE, "batch_size": batch},
            "output": {"path": str(folder / f"output-{time.monotonic_ns()}"), "crs": None},
        }
    )
    settings, storage, tasks = prepare(job)
    engine = LocalEngine(settings, storage)
    every = iter(tasks)
    sweep(engine, islice(every, 1))
    start = time.perf_counter()
    with busy() as shares:
        done = list(engine.sweep(every))
    seconds = time.perf_counter() - start
    if any(outcome.status != "succeeded" for outcome in done):
        raise RuntimeError("A scene failed, or had nothing in it.")
    number = len(done) * _windows_of_scene()
    return {"windows_per_s": number / seconds, "busy_percent": float(np.mean(shares or [0]))}


def _windows_of_scene() -> int:
    return WindowGrid.cover(SIDE, SIDE, SIZE, OVERLAP).count


def deepforests(weights: Path, batch: int, raster: Path) -> dict[str, float]:
    """Windows a second of DeepForest's `predict_tile`, by strategy."""
    from tests.peers import load_retinanet, make_deepforest

    model = make_deepforest(load_retinanet(weights), weights)
    model.config.batch_size = batch
    model.config.accelerator = "cpu" if DEVICE == "cpu" else "gpu"
    model.create_trainer(logger=False, enable_progress_bar=False)
    options = {"patch_size": SIZE, "patch_overlap": OVERLAP, "iou_threshold": 0.15}
    found = {}
    for strategy in ("single", "window"):
        start = time.perf_counter()
        model.predict_tile(str(raster), dataloader_strategy=strategy, **options)
        _wait()
        found[strategy] = _windows_of_scene() / (time.perf_counter() - start)
    return found


def crops(network: str, batch: int) -> dict[str, float]:
    """Crops a second: the network alone, and `classify` from crops as they were cut."""
    torch.manual_seed(0)
    whole = load_crop_model(CropModel(2, model=network).eval(), device=DEVICE)
    rng = np.random.default_rng(0)
    cut = [rng.integers(0, 256, (42, 42, 3), np.uint8) for _ in range(batch)]
    ready = torch.from_numpy(whole.prepare(cut)).to(DEVICE)
    found = {}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        half = dtype != torch.float32
        with torch.inference_mode(), torch.autocast(ready.device.type, dtype, enabled=half):
            found[f"network, {name}"] = per_second(lambda: whole(ready), batch)
    found["prepared on the host"] = per_second(lambda: whole.classify(whole.prepare(cut)), batch)
    return found


def km2_per_hour(windows_per_s: float, gsd: float) -> float:
    """Ground that windows add, as each shares 5 % of its side with the next."""
    return windows_per_s * 3600 * (SIZE * (1 - OVERLAP) * gsd / 1000) ** 2


def main() -> None:
    if not TRIAL and not torch.cuda.is_available():
        print("torch sees no GPU here: nothing was measured (BENCH_DEVICE=cpu tries the code).")
        return
    from tests.peers import make_retinanet

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="geosweep-gpu-") as name:
        folder = Path(name)
        weights = folder / "weights"
        weights.mkdir()
        (folder / "scenes").mkdir()
        make_retinanet(weights)
        for number in range(3):
            path = folder / "scenes" / f"scene{number}.tif"
            write_mirrored(path, SIDE, SIDE, compress="jpeg")
        for title, model in {
            "RetinaNet-R50": str(weights),
            "geosweep/tree": "geosweep/tree",
        }.items():
            results[title] = {
                "convolutions": {str(n): convolutions(model, n) for n in BATCHES},
                "from memory": {str(n): from_memory(model, n) for n in BATCHES},
                "from disk": {str(n): from_disk(model, n, folder) for n in BATCHES},
            }
        peer = {str(n): deepforests(weights, n, folder / "scenes" / "scene0.tif") for n in BATCHES}
        results["RetinaNet-R50"]["DeepForest"] = peer
    classifiers = {
        network: {str(n): crops(network, n) for n in BATCHES}
        for network in ("resnet18", "resnet50")
    }
    report(results, classifiers)


def best(found: dict[str, dict[str, float]], *names: str) -> float:
    """The largest figure over batch sizes, of some settings or all."""
    return max(v for row in found.values() for k, v in row.items() if not names or k in names)


def report(results: dict[str, Any], classifiers: dict[str, Any]) -> None:
    console = Console(width=120)
    ground = [f"km²/h at {gsd} m" for gsd in GSDS]
    table = Table(title=f"windows of {SIZE} px on {_name()}, at the best batch size")
    for column in ("", "", "windows/s", "÷ ceiling", "÷ DeepForest", *ground):
        table.add_column(column, justify="right")
    for model, parts in results.items():
        ceiling = best(parts["convolutions"])
        peer = best(parts["DeepForest"]) if "DeepForest" in parts else None
        busy_percent = best(parts["from disk"], "busy_percent")
        rows = {
            "convolutions alone": ceiling,
            "detect, from memory": best(parts["from memory"]),
            f"local engine, from a COG ({busy_percent:.0f} % busy)": best(
                parts["from disk"], "windows_per_s"
            ),
        } | ({} if peer is None else {"DeepForest": peer})
        for name, rate in rows.items():
            against = "" if peer is None else f"{rate / peer:.1f}"
            areas = [f"{km2_per_hour(rate, gsd):,.0f}" for gsd in GSDS]
            table.add_row(model, name, f"{rate:.1f}", f"{rate / ceiling:.2f}", against, *areas)
    console.print(table)
    console.print(f"ORNL: {ORNL_KM2_H:,} km²/h for a GPU at 1 m.")
    table = Table(title="crops of 224 px a second, at the best batch size")
    names = list(next(iter(next(iter(classifiers.values())).values())))
    for column in ("", *names):
        table.add_column(column, justify="right")
    for network, rows in classifiers.items():
        table.add_row(network, *(f"{best(rows, name):.0f}" for name in names))
    console.print(table)
    if TRIAL:
        return
    save(
        "gpu",
        setting("torch", "torchvision")
        | {
            "device": _name(),
            "detectors": results,
            "classifiers": classifiers,
        },
    )


def _name() -> str:
    return "a CPU, on trial" if TRIAL else torch.cuda.get_device_name()


if __name__ == "__main__":
    main()
