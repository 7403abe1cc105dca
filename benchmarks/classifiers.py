"""Crop classifiers on a CPU: plain torch against other engines, CPU time for each crop of 224 px.

Engines take turns over the same crops, each in one thread; a figure is the median over the rounds of
torch's time divided by the engine's. Weights are random, which costs as much as trained ones.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks._results import save, setting
from geosweep.models import CropModel, load_crop_model

NETWORKS, CROPS, ROUNDS = ("resnet18", "resnet50"), 8, 5
ENGINES: dict[str, dict[str, str]] = {
    "torch": {},
    "torch bf16": {"precision": "bf16"},
    "onnx": {"backend": "onnx"},
    "openvino": {"backend": "openvino"},
    "openvino bf16": {"backend": "openvino", "precision": "bf16"},
}


def compare(network: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model = CropModel(2, model=network).eval()
    rng = np.random.default_rng(0)
    batch = model.prepare([rng.integers(0, 256, (42, 42, 3), np.uint8) for _ in range(CROPS)])
    _spread(model, batch)
    ways = {
        name: load_crop_model(copy.copy(model), device="cpu", threads=1, **settings)
        for name, settings in ENGINES.items()
    }
    found = {name: way.classify(batch) for name, way in ways.items()}  # made ready as well

    def spent(way: CropModel) -> float:
        start = time.process_time()
        way.classify(batch)
        return time.process_time() - start

    cpu = np.array([[spent(way) for way in ways.values()] for _ in range(ROUNDS)])
    return {
        name: {
            "cpu_ms_per_crop": float(np.median(cpu[:, place])) / CROPS * 1e3,
            "cpu_ratio": float(np.median(cpu[:, 0] / cpu[:, place])),
            "largest_difference": float(np.abs(found[name] - found["torch"]).max()),
        }
        for place, name in enumerate(ways)
    }


def _spread(model: CropModel, batch: np.ndarray) -> None:
    """Scale the last layer, so that random weights are not sure of one class: differences would hide."""
    head: Any = model.model.fc  # type: ignore[union-attr]
    with torch.no_grad():
        logits = model(torch.from_numpy(batch))
        head.weight /= logits.abs().max()
        head.bias.zero_()


def main() -> None:
    results = {network: compare(network) for network in NETWORKS}
    table = Table(title="Classifiers at 224 px, CPU ms a crop, 1 thread")
    for column in ("", *ENGINES):
        table.add_column(column, justify="right" if column else "left")
    for network, rows in results.items():
        cells = (
            f"{row['cpu_ms_per_crop']:.1f} (× {row['cpu_ratio']:.1f})" for row in rows.values()
        )
        table.add_row(network, *cells)
    Console(width=120).print(table)
    content = setting("torch", "torchvision", "onnxruntime", "openvino") | {
        "rounds": ROUNDS,
        "networks": results,
    }
    save("classifiers", content)


if __name__ == "__main__":
    main()
