"""How much of its time a detector as fast as a GPU has something to do in the local engine.

The GPU is pretended: the detector waits as long as one would compute, and finds a lattice of boxes. All
else is real: JPEG COGs of a NEON tile, from disk and from a server that answers each request after 30 ms,
read, merged and committed to disk. The share of the wall time that the detector spent waiting, from the
first scene's opening to the last one's record, is what a GPU would be busy.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._mirrored import write_mirrored
from benchmarks._results import save, setting
from benchmarks.pipeline import prepare, sweep, timed
from geosweep.models import Detections
from geosweep.pipeline import Job
from geosweep.pipeline.local import LocalEngine
from tests.servers import range_server

SCENES, SIDE = 8, 2400
LATENCY_S = 0.03
WINDOW_S = (0.002, 0.004)
"""Seconds for a window: 500 and 250 windows a second."""
ROUNDS = 3
BOXES = 30


class Pretended:
    """Waits, and finds `BOXES` boxes in each window."""

    name = "benchmarks/pretended"
    version = "1"
    labels = ("Tree",)
    device = "pretended"
    window_s = 0.0

    def __init__(self) -> None:
        self.waited = 0.0
        x, y = np.meshgrid(np.arange(15, 395, 65), np.arange(15, 395, 76))
        corners = np.stack([x, y], axis=-1).reshape(-1, 2)[:BOXES].astype(np.float32)
        labels, scores = np.zeros(len(corners), np.int64), np.full(len(corners), 0.9, np.float32)
        self._found = Detections(np.hstack([corners, corners + 20]), labels, scores)

    def detect(self, images: np.ndarray) -> list[Detections]:
        """The same boxes for each window of (N, 3, H, W), after a while."""
        start = time.perf_counter()
        time.sleep(len(images) * self.window_s)
        self.waited += time.perf_counter() - start
        return [self._found] * len(images)


def pretended() -> Pretended:
    """The detector, as a job names it: ``benchmarks.keeping_busy:pretended``."""
    return Pretended()


def measure(sources: list[str], output: Path, window_s: float) -> dict[str, float]:
    """The detector's share of the wall time of a run, and the run's CPU-seconds."""
    job = Job.model_validate(
        {
            "name": "busy",
            "source": {"rasters": sources},
            "detector": {"model": "benchmarks.keeping_busy:pretended", "batch_size": 16},
            "merge": {"scenes": "none"},
            "output": {"path": str(output), "crs": None},
        }
    )
    settings, storage, tasks = prepare(job)
    engine = LocalEngine(settings, storage)
    detector: Any = engine._finder.detector
    detector.window_s = window_s
    took = timed(lambda: sweep(engine, tasks))
    return took | {"busy": detector.waited / took["wall_s"]}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A range server in a process of its own; gives its URL."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, there))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("enough")
        process.join()


def _serve(folder: Path, pipe: Connection) -> None:
    with range_server(folder, latency=LATENCY_S) as server:
        pipe.send(server.url)
        pipe.recv()


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="geosweep-busy-") as name:
        folder = Path(name)
        scenes = folder / "scenes"
        scenes.mkdir()
        for number in range(SCENES):
            write_mirrored(
                scenes / f"{number}.tif", SIDE, SIDE, compress="jpeg", photometric="ycbcr"
            )
        names = sorted(path.name for path in scenes.iterdir())
        with serving(scenes) as url:
            places = {"disk": str(scenes), f"HTTP, {1000 * LATENCY_S:.0f} ms": url}
            measured: dict[tuple[str, float], list[dict[str, float]]] = {}
            for turn in range(ROUNDS):
                for where, base in places.items():
                    for window_s in WINDOW_S:
                        output = folder / f"{where}-{window_s}-{turn}"
                        sources = [f"{base}/{one}" for one in names]
                        found = measure(sources, output, window_s)
                        measured.setdefault((where, window_s), []).append(found)
    for (where, window_s), runs in measured.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append({"from": where, "window_ms": 1000 * window_s, **middle})
    table = Table(title=f"{SCENES} scenes of {SIDE} × {SIDE} px, a GPU pretended by waiting")
    for column in ("from", "ms a window", "wall s", "CPU s", "busy"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = (f"{row[key]:.2f}" for key in ("wall_s", "cpu_s", "busy"))
        table.add_row(row["from"], f"{row['window_ms']:.0f}", *numbers)
    Console().print(table)
    content = {"scenes": SCENES, "side": SIDE, "rounds": ROUNDS, "boxes_a_window": BOXES}
    save("keeping_busy", setting("rasterio", "pyarrow") | content | {"rows": rows})


if __name__ == "__main__":
    main()
