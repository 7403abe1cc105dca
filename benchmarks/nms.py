"""Duplicates across windows: ours (`core`, and `nms`, a global NMS) against SAHI's NMS and torchvision's.

All get the same boxes in the order a scene's collector has them, window by window, on one core.
*Scattered*: 10 objects in a window of 400 px, each found once by each window that sees it. *Crowded*:
30 objects in a window, each found ten times. Peers take turns; a figure is the median over the rounds of
their CPU time divided by ours. Kept boxes of `nms` must be those of torchvision, to the box, where
torchvision can do it in a reasonable time.

SAHI is no dependency, since it brings another OpenCV: `.venv/bin/pip install --no-deps sahi==0.12.8`.
`python -m benchmarks.nms SIZE…` takes other numbers of boxes than 33,000 and 1,000,000.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks._results import save
from geosweep.pipeline.detect import Found
from geosweep.pipeline.merge import merge_core, merge_nms
from geosweep.pipeline.windows import WindowGrid

SIZES = (33_000, 1_000_000)
SIZE, OVERLAP, IOU = 400, 0.05, 0.15
KINDS = {"scattered": (10, 1), "crowded": (30, 10)}
"""Objects in a window, and how often each is found there."""
QUADRATIC_LIMIT = 100_000
"""Boxes up to which torchvision takes part: its NMS looks at all pairs."""
Method = Callable[[Found, WindowGrid], Any]


def detections(count: int, kind: str) -> tuple[Found, WindowGrid]:
    """So many boxes, window by window, of objects that lie at random in a square raster."""
    rng = np.random.default_rng(0)
    objects, times = KINDS[kind]
    side = math.ceil(math.sqrt(count / objects / times))
    step = SIZE - math.floor(SIZE * OVERLAP)
    grid = WindowGrid.cover(step * side + SIZE - step, step * side + SIZE - step, SIZE, OVERLAP)
    centre = rng.uniform(0, grid.width, (side * side * objects, 2))
    half = rng.uniform(7, 30, centre.shape)
    boxes, windows = [], []
    last = np.minimum(centre // step, side - 1).astype(np.int64)
    for back in ((0, 0), (1, 0), (0, 1), (1, 1)):
        place = last - back
        sees = (place >= 0).all(axis=1) & (centre < place * step + SIZE).all(axis=1)
        which = np.repeat(np.flatnonzero(sees), times)
        number = place[which, 1] * side + place[which, 0]
        middle = centre[which] + rng.normal(0, 2, (len(which), 2))
        reach = half[which] * np.exp(rng.normal(0, 0.08, (len(which), 2)))
        corner = grid.offsets(number)
        low = np.clip(middle - reach, corner, corner + SIZE - 4)
        high = np.clip(middle + reach, low + 4, corner + SIZE)
        boxes.append(np.concatenate([low, high], axis=1))
        windows.append(number)
    window = np.concatenate(windows)
    order = np.argsort(window, kind="stable")[:count]
    # All different, so that nobody's rule for equal scores matters.
    scores = (rng.permutation(count) / count).astype(np.float32)
    found = Found(
        np.concatenate(boxes)[order].astype(np.float32),
        np.zeros(count, np.int64),
        scores,
        window[order],
    )
    return found, grid


def core(found: Found, grid: WindowGrid) -> int:
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    return len(merge_core(found[grid.in_core(found.window, centres)], grid, IOU).source)


def global_nms(found: Found, grid: WindowGrid) -> NDArray[np.int64]:
    return merge_nms(found, grid, IOU).source


def sahi(found: Found, grid: WindowGrid) -> list[int]:
    from sahi.postprocess.combine import nms  # pyright: ignore[reportMissingImports]

    rows = np.column_stack([np.trunc(found.boxes), found.scores, found.labels])
    return nms(rows, "IOU", IOU)


def torchvision(found: Found, grid: WindowGrid) -> list[int]:
    import torch
    from torchvision.ops import nms

    boxes, scores = torch.from_numpy(np.trunc(found.boxes)), torch.from_numpy(found.scores)
    return nms(boxes, scores, IOU).tolist()


METHODS: dict[str, Method] = {
    "core": core,
    "nms": global_nms,
    "SAHI": sahi,
    "torchvision": torchvision,
}


def taking_part(count: int) -> list[str]:
    names = ["core", "nms"]
    if _sahi_version():
        names.append("SAHI")
    return [*names, "torchvision"] if count <= QUADRATIC_LIMIT else names


def timed(work: Method, found: Found, grid: WindowGrid) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work(found, grid)
    return time.process_time() - cpu, time.perf_counter() - wall, result


def measure(count: int, kind: str, rounds: int) -> dict[str, Any]:
    found, grid = detections(count, kind)
    names = taking_part(count)
    kept = {name: METHODS[name](found, grid) for name in names if name != "core"}
    same = {name: len(np.setxor1d(kept[name], kept["nms"])) for name in kept if name != "nms"}
    if same.get("torchvision"):
        raise SystemExit(f"torchvision keeps {same['torchvision']} other boxes of {count} {kind}.")
    runs = [{name: timed(METHODS[name], found, grid)[:2] for name in names} for _ in range(rounds)]
    cpu = {name: statistics.median(run[name][0] for run in runs) for name in names}
    wall = {name: statistics.median(run[name][1] for run in runs) for name in names}
    ratio = {
        f"{name} / {ours}": statistics.median(run[name][0] / run[ours][0] for run in runs)
        for name in names[2:]
        for ours in ("core", "nms")
    }
    return {
        "boxes": count,
        "kind": kind,
        "kept": len(kept["nms"]),
        "kept_otherwise": same,
        "cpu_s": cpu,
        "wall_s": wall,
        "ratio": ratio,
        "memory_mb": {name: memory(name, count, kind) for name in names},
    }


def memory(name: str, count: int, kind: str) -> float:
    """By how much the peak memory of a process of its own grows, in MB."""
    code = (
        "import sys\n"
        "from benchmarks.nms import METHODS, detections\n"
        "name, count, kind = sys.argv[1:]\n"
        "METHODS[name](*detections(200, kind))\n"
        "case = detections(int(count), kind)\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "status = open('/proc/self/status').read()\n"
        "before = int(status.split('VmRSS:')[1].split()[0]) / 1024\n"
        "METHODS[name](*case)\n"
        "status = open('/proc/self/status').read()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) / 1024 - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(count), kind],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    return float(done.stdout)


def _sahi_version() -> str | None:
    try:
        return version("sahi")
    except PackageNotFoundError:
        return None


def main(*sizes: int) -> None:
    import torch

    torch.set_num_threads(1)
    console = Console()
    if not _sahi_version():
        console.print(
            "SAHI isn't installed, so it takes no part: see the head of benchmarks/nms.py."
        )
    table = Table(title="CPU seconds, one core")
    for column in (
        "boxes",
        "kind",
        "core",
        "nms",
        "SAHI",
        "torchvision",
        "SAHI ÷ core",
        "SAHI ÷ nms",
    ):
        table.add_column(column)
    rows = []
    for kind in KINDS:
        for count in sizes or SIZES:
            row = measure(count, kind, rounds=7 if count <= QUADRATIC_LIMIT else 3)
            rows.append(row)
            cpu, ratio = row["cpu_s"], row["ratio"]
            table.add_row(
                f"{count:,}",
                kind,
                *(f"{cpu[name]:.3g}" if name in cpu else "–" for name in METHODS),
                *(f"{ratio.get(f'SAHI / {ours}', math.nan):.1f}" for ours in ("core", "nms")),
            )
    console.print(table)
    growth = {}
    for kind in KINDS:
        small, *_, large = [row for row in rows if row["kind"] == kind] * 2
        if small["boxes"] == large["boxes"]:
            continue
        for name in large["cpu_s"]:
            times = large["cpu_s"][name] / small["cpu_s"][name]
            exponent = math.log(times) / math.log(large["boxes"] / small["boxes"])
            growth[f"{name}, {kind}"] = exponent
            console.print(f"{name}, {kind}: grows as n^{exponent:.2f}")
    for row in rows:
        peak = ", ".join(f"{name} {value:.0f}" for name, value in row["memory_mb"].items())
        console.print(
            f"{row['boxes']:,} {row['kind']}: MB {peak}; others kept {row['kept_otherwise']}"
        )
    if sizes:
        return
    content = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"sahi": _sahi_version()}
        | {name: version(name) for name in ("numpy", "torch", "torchvision", "shapely")},
        "rows": rows,
        "growth": growth,
    }
    save("nms", content)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
