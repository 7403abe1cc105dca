"""Memory that streaming and a run take anew, by the system's count of pages; for `smoke.py`.

Counting allocations would miss GDAL's and torch's. But where each large allocation is mapped by itself
and given back at once, the first touch of each of its pages is a page fault, and faults are counted for
the whole process, whatever the library. So this is a process of its own, which starts with
`ENVIRONMENT`: ``python -m benchmarks._memory FOLDER`` prints its measures as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._guard import Measure
from benchmarks._reading import OVERLAP, SIZE, by_stream
from geosweep.pipeline import Job, run
from geosweep.pipeline.windows import WindowGrid
from tests.rasters import textured, write_raster

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "NUMPY_MADVISE_HUGEPAGE": "0"}
SIDE = 2000
SCENES = 10
_NO_HUGE_PAGES = 41  # PR_SET_THP_DISABLE: a huge page would be one fault for 512 pages


def count_memory(folder: Path) -> list[Measure]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks._memory", str(folder)]
    done = subprocess.run(
        command, env=os.environ | ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True
    )
    return [Measure(*entry) for entry in json.loads(done.stdout)]


def touched(work: Callable[[], object]) -> int:
    """Bytes of pages that were touched for the first time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults * resource.getpagesize()


def measure(folder: Path) -> list[Measure]:
    """All measures, in a process that was started with `ENVIRONMENT`."""
    ctypes.CDLL(None).prctl(_NO_HUGE_PAGES, 1, 0, 0, 0)
    known = 50 << 20
    seen = touched(lambda: [np.ones(1 << 20, np.uint8).sum() for _ in range(50)])
    if not 0.95 < seen / known < 1.1:
        raise SystemExit(f"this system shows {seen >> 20} MB of {known >> 20} MB that were touched")
    grid = WindowGrid.cover(SIDE, SIDE, SIZE, OVERLAP)
    windows = grid.count * 3 * SIZE**2
    image = textured(SIDE, SIDE)
    raster = write_raster(
        folder / "memory.tif",
        image,
        driver="COG",
        compress="DEFLATE",
        blocksize=256,
        overviews="NONE",
    )
    by_stream(str(raster))  # imports, and what GDAL keeps
    streamed = touched(lambda: by_stream(str(raster)))
    sweep(raster, folder / "first", 1)
    swept = touched(lambda: sweep(raster, folder / "second", SCENES))
    handles = _handles()
    peaks = {count: _peak(raster, folder / f"peak{count}", count) for count in (1, SCENES)}
    return [
        # By the order of threads one in ten more (3.86 and 4.25 were seen); a copy more is one in four.
        Measure("stream: bytes of memory ÷ bytes of windows", streamed / windows, 0.18),
        Measure("run: bytes of memory ÷ bytes of windows", swept / windows / SCENES, 0.18),
        # How far the readers of two scenes are ahead at the peak is up to the machine: 26 to 31 MB were
        # seen. A third scene would be a third more.
        Measure("run: peak of 10 scenes ÷ peak of one", peaks[SCENES] / peaks[1], 0.25),
        Measure("run: MB at the peak", peaks[SCENES] / 1e6, 0.25),
        Measure("run: files left open by 10 scenes", _handles() - handles),
    ]


def sweep(raster: Path, output: Path, scenes: int) -> None:
    """Run over the same raster so many times under other names, with a detector that costs nothing."""
    names = []
    for number in range(scenes):
        name = output.parent / f"{output.name}-{number}.tif"
        name.hardlink_to(raster)
        names.append(name)
    detector = {"model": "benchmarks._lattice:lattice", "batch_size": 8}
    job = Job.from_dict(
        {
            "source": {"rasters": [str(name) for name in names]},
            "detector": detector,
            "merge": {"scenes": "none"},  # otherwise the first would own all ground
            "output": {"path": str(output)},
        }
    )
    result = run(job, engine="local", progress=False)
    assert result.counts["succeeded"] == scenes, result.counts


def _peak(raster: Path, output: Path, scenes: int) -> int:
    """Most bytes that Python and numpy held at a time."""
    tracemalloc.start()
    try:
        sweep(raster, output, scenes)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]))))
