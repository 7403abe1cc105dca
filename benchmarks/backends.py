"""Detectors on a CPU: plain torch against ONNX Runtime and OpenVINO, side by side.

A round runs every backend once over the same windows of real imagery, in turn; a figure is the median
over the rounds of torch's time divided by the backend's. CPU time is quoted as well, since walls on
these machines are noisy. The differences are those of the boxes: paired one to one at IoU 0.5, at
the models' own score thresholds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from rich.console import Console
from rich.table import Table
from torchvision.ops import box_iou

from benchmarks._results import save, setting
from geosweep.models import Detections, Detector, load_detector
from geosweep.models._annotations import deepforest_data

TILE = "2019_YELL_2_541000_4977000_image_crop.png"
ROUNDS = 5
# Model -> windows in a round.
MODELS = {"geosweep/tree": 4, "RetinaNet-R50": 2}
BACKENDS = {
    "torch": {},
    "torch bf16": {"precision": "bf16"},
    "onnx": {"backend": "onnx"},
    "openvino": {"backend": "openvino"},
    "openvino bf16": {"backend": "openvino", "precision": "bf16"},
}


def windows(count: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(deepforest_data() / TILE) as source:
            pixels = source.read([1, 2, 3])
    corners = [(0, 0), (400, 0), (800, 400), (400, 600)][:count]
    return np.stack([pixels[:, y : y + 400, x : x + 400] for x, y in corners])


def differences(found: list[Detections], wanted: list[Detections]) -> dict[str, Any]:
    """Share of boxes with a partner, and how far partners are apart."""
    pairs, total, pixels, scores = 0, 0, 0.0, 0.0
    for own, reference in zip(found, wanted, strict=True):
        total += max(len(own), len(reference))
        if not len(own) or not len(reference):
            continue
        iou = box_iou(torch.from_numpy(own.boxes), torch.from_numpy(reference.boxes)).numpy()
        partner = iou.argmax(1)
        # One to one: each is the other's best.
        mutual = (iou.max(1) >= 0.5) & (iou.argmax(0)[partner] == np.arange(len(own)))
        pairs += int(mutual.sum())
        if mutual.any():
            left, right = np.flatnonzero(mutual), partner[mutual]
            pixels = max(pixels, float(np.abs(own.boxes[left] - reference.boxes[right]).max()))
            scores = max(scores, float(np.abs(own.scores[left] - reference.scores[right]).max()))
    return {"paired": pairs / max(total, 1), "boxes": total, "pixels": pixels, "score": scores}


def measure(detector: Detector, images: np.ndarray) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    detector.detect(images)
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(title: str, model: str, images: np.ndarray, cores: int) -> dict[str, Any]:
    detectors = {
        name: load_detector(model, device="cpu", threads=cores, **settings)  # type: ignore[arg-type]
        for name, settings in BACKENDS.items()
    }
    start = time.perf_counter()
    found = {name: detector.detect(images) for name, detector in detectors.items()}  # warm-up
    print(f"{title}: made ready and warmed up in {time.perf_counter() - start:.0f} s", flush=True)
    rounds = [
        {name: measure(detector, images) for name, detector in detectors.items()}
        for _ in range(ROUNDS)
    ]
    result: dict[str, Any] = {}
    for name in BACKENDS:
        result[name] = {
            "windows_per_second": len(images) / statistics.median(r[name][0] for r in rounds),
            "cpu_seconds_per_window": statistics.median(r[name][1] for r in rounds) / len(images),
            "speed_up_wall": statistics.median(r["torch"][0] / r[name][0] for r in rounds),
            "speed_up_cpu": statistics.median(r["torch"][1] / r[name][1] for r in rounds),
            **differences(found[name], found["torch"]),
        }
    return result


def main() -> None:
    from geosweep.models import available_cores
    from tests.peers import make_retinanet

    cores = available_cores()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, count in MODELS.items():
            model = title
            if title != "geosweep/tree":
                make_retinanet(Path(folder))
                model = folder
            results[title] = compare(title, model, windows(count), cores)
    console = Console(width=110)
    for title, rows in results.items():
        table = Table(title=f"{title}, windows of 400 px, {cores} cores")
        for column in ("", "windows/s", "CPU-s/window", "× wall", "× CPU", "paired", "px", "score"):
            table.add_column(column, justify="right")
        for name, row in rows.items():
            table.add_row(
                name,
                f"{row['windows_per_second']:.2f}",
                f"{row['cpu_seconds_per_window']:.3f}",
                f"{row['speed_up_wall']:.2f}",
                f"{row['speed_up_cpu']:.2f}",
                f"{row['paired']:.1%} of {row['boxes']}",
                f"{row['pixels']:.2g}",
                f"{row['score']:.2g}",
            )
        console.print(table)
    content = setting("torch", "torchvision", "onnxruntime", "openvino") | {
        "rounds": ROUNDS,
        "models": results,
    }
    save("backends", content)


if __name__ == "__main__":
    main()
