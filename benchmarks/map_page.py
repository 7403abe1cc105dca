"""How long the map page takes to write, and how big it is, for 10,000 and 200,000 detections."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from geosweep.pipeline import write_map
from tests.outputs import make_output


def main() -> None:
    for count in (10_000, 200_000):
        with tempfile.TemporaryDirectory() as folder:
            output = make_output(Path(folder), detections=count, imagery=False)
            start = time.perf_counter()
            page = write_map(output)
            seconds, size = time.perf_counter() - start, page.stat().st_size / 1e6
        print(f"{count:>8,} detections: {seconds:6.2f} s, {size:6.2f} MB")


if __name__ == "__main__":
    main()
