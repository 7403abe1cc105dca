"""Windows out of a 10,000² RGB COG: our stream against rasterio window by window.

Both read the same windows (400 px, 5 % overlap) of the same file, in turn A B A B …; the figure is the
median of the ratios. The limit is every block decoded once, in order, with nothing else done.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table

from geosweep.catalog import gdal_env
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.stream import stream_windows
from geosweep.pipeline.windows import WindowGrid
from tests.rasters import textured, write_raster
from tests.servers import range_server

SIDE, SIZE, OVERLAP, ROUNDS, THREADS = 10_000, 400, 0.05, 3, 2


def stream(href: str) -> int:
    with RasterSource(href, threads=THREADS) as source:
        grid = WindowGrid.cover(source.width, source.height, SIZE, OVERLAP)
        return sum(len(batch.index) for batch in stream_windows(source, grid, batch_size=8))


def one_by_one(href: str) -> int:
    grid = WindowGrid.cover(SIDE, SIDE, SIZE, OVERLAP)
    with rasterio.Env(**gdal_env(href) | {"GDAL_CACHEMAX": 512}), rasterio.open(href) as dataset:
        for x, y in grid.offsets(np.arange(grid.count)).tolist():
            dataset.read([1, 2, 3], window=Window(x, y, SIZE, SIZE))
    return grid.count


def every_block(href: str) -> int:
    with (
        rasterio.Env(**gdal_env(href)),
        rasterio.open(href, NUM_THREADS=str(THREADS)) as dataset,
    ):
        high = dataset.block_shapes[0][0]
        for top in range(0, dataset.height, high):
            rows = min(high, dataset.height - top)
            dataset.read([1, 2, 3], window=Window(0, top, dataset.width, rows))
    return WindowGrid.cover(SIDE, SIDE, SIZE, OVERLAP).count


def timed(work: Callable[[str], int], href: str) -> float:
    start = time.perf_counter()
    count = work(href)
    return count / (time.perf_counter() - start)


def main() -> None:
    table = Table(title=f"windows/s, {SIZE} px, {OVERLAP:.0%} overlap, {os.cpu_count()} cores")
    for column in ("file", "over", "ours", "rasterio", "limit", "ours ÷ rasterio", "ours ÷ limit"):
        table.add_column(column)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        image = textured(SIDE, SIDE)
        for codec in ("JPEG", "DEFLATE"):
            path = Path(folder) / f"{codec.lower()}.tif"
            write_raster(path, image, driver="COG", compress=codec, blocksize=512)
            with range_server(Path(folder), latency=0.03) as server:
                for over, href in (
                    ("disk", str(path)),
                    ("HTTP, 30 ms", f"{server.url}/{path.name}"),
                ):
                    rounds = [
                        [timed(work, href) for work in (stream, one_by_one, every_block)]
                        for _ in range(ROUNDS)
                    ]
                    ours, theirs, limit = (statistics.median(c) for c in zip(*rounds, strict=True))
                    to_theirs = statistics.median(a / b for a, b, _ in rounds)
                    to_limit = statistics.median(a / c for a, _, c in rounds)
                    table.add_row(
                        codec,
                        over,
                        *(f"{value:.0f}" for value in (ours, theirs, limit)),
                        f"{to_theirs:.1f}",
                        f"{to_limit:.2f}",
                    )
                    results.append(
                        {
                            "codec": codec,
                            "over": over,
                            "ours": ours,
                            "rasterio": theirs,
                            "limit": limit,
                            "ours_to_rasterio": to_theirs,
                            "ours_to_limit": to_limit,
                        }
                    )
    Console().print(table)
    target = Path(__file__).parent / "results" / "windows.json"
    target.parent.mkdir(exist_ok=True)
    content = {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__, "rows": results}
    target.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
