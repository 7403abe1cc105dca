"""`predict_tile` with the same RetinaNet weights: ours against DeepForest's, and how many boxes agree.

Run in turn on part of a NEON tile; the figure is the median of the ratios of wall time. Each call runs
in a process of its own, so that peak memory is its own, too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import rasterio
from rich.console import Console
from rich.table import Table

from geosweep.models._annotations import deepforest_data

WIDTH, HEIGHT, ROUNDS = 1160, 780, 2


def ours(tile: str, weights: str) -> tuple[float, int]:
    from geosweep.models import load_detector
    from geosweep.pipeline import predict_tile

    detector = load_detector(weights, device="cpu")
    start = time.perf_counter()
    found = predict_tile(tile, detector=detector, merge="nms")
    return time.perf_counter() - start, len(found)


def deepforests(tile: str, weights: str) -> tuple[float, int]:
    from deepforest.models.retinanet import RetinaNetHub

    from tests.peers import NMS, SCORE, _offline, make_deepforest

    with _offline():
        network = RetinaNetHub.from_pretrained(weights, nms_thresh=NMS, score_thresh=SCORE)
    model = make_deepforest(network.eval(), Path(weights))
    start = time.perf_counter()
    found = model.predict_tile(tile, patch_size=400, patch_overlap=0.05, iou_threshold=0.15)
    return time.perf_counter() - start, len(found)


def measure(work: Any, tile: str, weights: str, results: Any) -> None:
    seconds, boxes = work(tile, weights)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.put((seconds, boxes, peak))


def run(work: Any, tile: str, weights: str) -> tuple[float, int, float]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(work, tile, weights, results))
    process.start()
    outcome = results.get(timeout=900)
    process.join()
    return outcome


def main() -> None:
    from tests.peers import make_retinanet

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        weights.mkdir()
        make_retinanet(weights)
        tile = Path(folder) / "tile.png"
        name = "2019_YELL_2_528000_4978000_image_crop2.png"
        with rasterio.open(deepforest_data() / name) as source:
            data = source.read([1, 2, 3])[:, :HEIGHT, :WIDTH]
        options = {"driver": "PNG", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8"}
        with rasterio.open(tile, "w", **options) as target:
            target.write(data)
        rounds = [
            (run(ours, str(tile), str(weights)), run(deepforests, str(tile), str(weights)))
            for _ in range(ROUNDS)
        ]
    table = Table(title=f"predict_tile, RetinaNet, {WIDTH}×{HEIGHT} px, {os.cpu_count()} cores")
    for column in ("", "seconds", "boxes", "peak MB"):
        table.add_column(column)
    for place, who in enumerate(("geosweep", "DeepForest 2.1.0")):
        mine = [pair[place] for pair in rounds]
        table.add_row(
            who,
            f"{statistics.median(m[0] for m in mine):.1f}",
            str(mine[0][1]),
            f"{statistics.median(m[2] for m in mine):.0f}",
        )
    ratio = statistics.median(theirs[0] / own[0] for own, theirs in rounds)
    console = Console()
    console.print(table)
    console.print(f"geosweep is {ratio:.2f} times as fast")
    target = Path(__file__).parent / "results" / "predict_tile.json"
    target.parent.mkdir(exist_ok=True)
    content = {"ratio": ratio, "rounds": [{"ours": a, "deepforest": b} for a, b in rounds]}
    target.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
