"""`predict_tile` with the same RetinaNet weights: ours against DeepForest's, in time, boxes and memory.

Time: part of a NEON tile (all of its 2299 × 2472 px with `BENCH_FULL=1`), each call in a process of its
own, in turn: ours with plain torch, ours with OpenVINO in bf16, and DeepForest's strategies. A figure is
the median over the rounds of the fastest strategy's time divided by ours. Loading a model and its first
window are not in it.

Memory: the small raster, and a COG of 10,000 × 10,000 px made of the tile and its mirror images. All of
that would take a RetinaNet an hour, so both are stopped after so many windows, by an exception from the
network: by then DeepForest has its data set, and what is measured is the least that it takes. Ours is
measured on all windows, too, with geosweep/tree for a detector.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._mirrored import write_mirrored
from benchmarks._results import save, setting

FULL = os.environ.get("BENCH_FULL") == "1"
WIDTH, HEIGHT = (2299, 2472) if FULL else (780, 780)
ROUNDS = 1 if FULL else 2
SIDE = 10_000
STOP = 3
BATCH = 2
"""As many windows at a time as there are cores here: ours takes a core for each, whatever their number."""
ENGINES: dict[str, dict[str, Any]] = {
    "torch": {},
    "OpenVINO bf16": {"backend": "openvino", "precision": "bf16"},
}
STRATEGIES = ("single", "window")


class EnoughError(Exception):
    """So many windows were computed."""


class Stopped:
    """A detector that gives up after some windows."""

    def __init__(self, detector: Any, windows: int) -> None:
        self._detector, self._left = detector, windows
        self.name, self.version = detector.name, detector.version
        self.labels, self.device = detector.labels, detector.device

    def detect(self, images: Any) -> Any:
        if self._left <= 0:
            raise EnoughError
        self._left -= len(images)
        return self._detector.detect(images)


def ours(tile: str, weights: str, kind: str, stop: int | None) -> dict[str, Any]:
    from geosweep.models import load_detector
    from geosweep.pipeline import predict_tile

    detector: Any = load_detector(weights, device="cpu", **ENGINES[kind])
    detector.detect(np.zeros((1, 3, 400, 400), np.uint8))
    if stop is not None:
        detector = Stopped(detector, stop)
    return timed(lambda: predict_tile(tile, detector=detector, merge="nms", batch_size=BATCH))


def deepforests(tile: str, weights: str, kind: str, stop: int | None) -> dict[str, Any]:
    import torch

    from tests.peers import load_retinanet, make_deepforest

    network = load_retinanet(Path(weights))
    with torch.inference_mode():
        network([torch.zeros(3, 400, 400)])
    seen = Counter[str]()

    def count(_module: Any, inputs: Any) -> None:
        if stop is not None and seen["windows"] >= stop:
            raise EnoughError
        seen["windows"] += len(inputs[0])

    # DeepForest calls the network's `forward`, which passes its own hooks by.
    network.transform.register_forward_pre_hook(count)
    model = make_deepforest(network, Path(weights))
    model.config.batch_size = BATCH
    options = {"patch_size": 400, "patch_overlap": 0.05, "iou_threshold": 0.15}
    return timed(lambda: model.predict_tile(tile, dataloader_strategy=kind, **options))


def timed(work: Any) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    boxes: list[tuple[Any, ...]] = []
    try:
        found = work()
        corners = np.trunc(found[["xmin", "ymin", "xmax", "ymax"]].to_numpy(float)).astype(int)
        boxes = [(*map(int, box), label) for box, label in zip(corners, found.label, strict=True)]
    except EnoughError:
        pass
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "boxes": boxes,
    }


def _child(work: Any, arguments: tuple[Any, ...], results: Any) -> None:
    results.put(work(*arguments))


def apart(work: Any, *arguments: Any) -> dict[str, Any]:
    """Do it in a fresh process, whose peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_child, args=(work, arguments, results))
    process.start()
    outcome = results.get(timeout=1800)
    process.join()
    return outcome


def main() -> None:
    from tests.peers import make_retinanet

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        weights.mkdir()
        make_retinanet(weights)
        small = str(write_mirrored(Path(folder) / "small.tif", WIDTH, HEIGHT))
        large = str(write_mirrored(Path(folder) / "large.tif", SIDE, SIDE))
        runs = [*((ours, kind) for kind in ENGINES), *((deepforests, kind) for kind in STRATEGIES)]
        rounds = [
            {
                f"{work.__name__} {kind}": apart(work, small, str(weights), kind, None)
                for work, kind in runs
            }
            for _ in range(ROUNDS)
        ]
        memory = {
            f"{work.__name__} {kind}": {
                size: apart(work, raster, str(weights), kind, STOP)["peak_mb"]
                for size, raster in (("small", small), ("large", large))
            }
            for work, kind in runs
        }
        memory["geosweep/tree, all windows"] = {
            size: apart(ours, raster, "geosweep/tree", "torch", None)["peak_mb"]
            for size, raster in (("small", small), ("large", large))
        }
    report(rounds, memory)


def summarise(rounds: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Medians, and ratios and boxes against DeepForest's fastest strategy of each round."""
    rows: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        row: dict[str, Any] = {
            key: statistics.median(r[name][key] for r in rounds)
            for key in ("wall_s", "cpu_s", "peak_mb")
        }
        for key in ("wall_s", "cpu_s"):
            row[f"times_{key[:-2]}"] = statistics.median(
                min(r[f"deepforests {kind}"][key] for kind in STRATEGIES) / r[name][key]
                for r in rounds
            )
        reference = Counter(rounds[0]["deepforests single"]["boxes"])
        own = Counter(rounds[0][name]["boxes"])
        row |= {"boxes": own.total(), "equal": (own & reference).total()}
        rows[name] = row
    return rows


def report(rounds: list[dict[str, Any]], memory: dict[str, dict[str, float]]) -> None:
    rows = summarise(rounds)
    console = Console(width=110)
    table = Table(title=f"predict_tile, RetinaNet, {WIDTH}×{HEIGHT} px, {os.cpu_count()} cores")
    for column in ("", "wall s", "CPU s", "× wall", "× CPU", "boxes", "DeepForest's"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        times = f"{row['times_wall']:.2f}", f"{row['times_cpu']:.2f}"
        seconds = f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}"
        table.add_row(name, *seconds, *times, str(row["boxes"]), str(row["equal"]))
    console.print(table)
    table = Table(title=f"peak memory in MB, after {STOP} windows")
    for column in ("", f"{WIDTH}×{HEIGHT}", f"{SIDE}×{SIDE}"):
        table.add_column(column, justify="right")
    for name, row in memory.items():
        table.add_row(name, f"{row['small']:.0f}", f"{row['large']:.0f}")
    console.print(table)
    content = setting("torch", "torchvision", "deepforest", "openvino") | {
        "pixels": [WIDTH, HEIGHT],
        "rounds": ROUNDS,
        "batch": BATCH,
        "time": rows,
        "memory_mb": {"windows": STOP, "sides": [[WIDTH, HEIGHT], [SIDE, SIDE]], "peaks": memory},
    }
    save("predict_tile", content)


if __name__ == "__main__":
    main()
