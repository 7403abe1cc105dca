"""Windows out of a 10,000² RGB COG: our stream against others, and against what nobody can beat.

The pixels are a NEON tile and its mirror images side by side, so codecs have real work; there are no
overviews, so the file is what has to be read. From disk the limit is every block decoded once, in order,
by GDAL with as many threads, and nothing done with it. Over HTTP the peers open the file once and read
window by window: rasterio with the settings that do best for it, and rio-tiler with the same. All take
turns, A B A B …; a figure is the median of the ratios of a round.

`python -m benchmarks windows` reads one file over HTTP, ``python -m benchmarks.windows --all`` all of them.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rio_tiler
from numpy.typing import NDArray
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table
from rio_tiler.io import Reader

from benchmarks._reading import decode_blocks
from benchmarks._results import save
from geosweep.models._annotations import deepforest_data
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.stream import stream_windows
from geosweep.pipeline.windows import WindowGrid
from tests.rasters import write_raster
from tests.servers import range_server

SIDE, ROUNDS, THREADS = 10_000, 3, 2
TILE = "2019_YELL_2_528000_4978000_image_crop2.png"
CODECS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 85},
    "DEFLATE": {"predictor": "STANDARD"},
    "ZSTD": {"predictor": "STANDARD"},
    "WEBP": {"quality": 85},
}
BLOCKS = (512, 256)
TILINGS = ((400, 0.05), (1024, 0.1))
LATENCIES = (0.0, 0.03, 0.15)
PEER_ENV = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "CPL_VSIL_CURL_CACHE_SIZE": "268435456",
    "GDAL_CACHEMAX": 512 << 20,
}
"""Two rows of blocks fit in the cache, as they must, or blocks are fetched again and again. A number
is bytes for rasterio. More threads, larger chunks and VSI_CACHE made it no faster."""


class Case(NamedTuple):
    """A file, and how windows are laid over it."""

    codec: str
    block: int
    size: int
    overlap: float

    @property
    def file(self) -> str:
        return f"{self.codec.lower()}{self.block}.tif"

    @property
    def grid(self) -> WindowGrid:
        return WindowGrid.cover(SIDE, SIDE, self.size, self.overlap)


EVERY = [Case(*file, *tiling) for file in product(CODECS, BLOCKS) for tiling in TILINGS]
USUAL = Case("JPEG", 512, 400, 0.05)
"""What is read over HTTP, too."""


class Cost(NamedTuple):
    """Of one pass: seconds, CPU-seconds, and what a server was asked."""

    wall: float
    cpu: float
    requests: int = 0
    sent: int = 0


def stream(href: str, case: Case) -> None:
    with RasterSource(href, threads=THREADS) as source:
        for _ in stream_windows(source, case.grid, batch_size=8):
            pass


def every_block(href: str, _: Case) -> None:
    decode_blocks(href, THREADS)


def with_rasterio(href: str, case: Case) -> None:
    with rasterio.Env(**PEER_ENV), rasterio.open(href) as dataset:
        for x, y in case.grid.offsets(np.arange(case.grid.count)).tolist():
            dataset.read([1, 2, 3], window=Window(x, y, case.size, case.size))


def with_rio_tiler(href: str, case: Case) -> None:
    with rasterio.Env(**PEER_ENV), Reader(href) as reader:
        crs, to_map = reader.dataset.crs, reader.dataset.transform
        for x, y in case.grid.offsets(np.arange(case.grid.count)).tolist():
            left, top = to_map @ (x, y)
            right, bottom = to_map @ (x + case.size, y + case.size)
            reader.part((left, bottom, right, top), bounds_crs=crs, indexes=(1, 2, 3))


def picture() -> NDArray[np.uint8]:
    """(3, SIDE, SIDE) of real pixels."""
    with rasterio.open(deepforest_data() / TILE) as source:
        tile = source.read((1, 2, 3))
    four = np.concatenate([tile, tile[:, :, ::-1]], axis=2)
    four = np.concatenate([four, four[:, ::-1]], axis=1)
    times = (1, -(-SIDE // four.shape[1]), -(-SIDE // four.shape[2]))
    return np.ascontiguousarray(np.tile(four, times)[:, :SIDE, :SIDE])


def timed(work: Callable[[str, Case], None], href: str, case: Case, server: Any = None) -> Cost:
    if server is not None:
        server.requests = server.sent = 0
    cpu, start = time.process_time(), time.perf_counter()
    work(href, case)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Cost(wall, cpu, *((server.requests, server.sent) if server is not None else ()))


def from_disk(folder: Path, case: Case) -> dict[str, Any]:
    """Our share of the limit."""
    href = str(folder / case.file)
    stream(href, case)
    rounds = [[timed(work, href, case) for work in (stream, every_block)] for _ in range(ROUNDS)]
    ours, limit = ([entry[i] for entry in rounds] for i in range(2))
    return {
        **case._asdict(),
        "cpu_s": statistics.median(cost.cpu for cost in ours),
        "limit_cpu_s": statistics.median(cost.cpu for cost in limit),
        "share_of_limit_cpu": _ratio(limit, ours, "cpu"),
        "share_of_limit_wall": _ratio(limit, ours, "wall"),
    }


def over_http(folder: Path, case: Case, latency: float) -> dict[str, Any]:
    """Against those who read window by window, with every request answered after `latency` seconds.

    The server shares this process, so its CPU time is in everybody's.
    """
    works = (stream, with_rasterio, with_rio_tiler)
    file_bytes = (folder / case.file).stat().st_size
    with range_server(folder, latency=latency) as server:
        # A URL for each pass: GDAL remembers what another pass has fetched.
        urls = (f"{server.url}/{case.file}?pass={number}" for number in count())
        rounds = [[timed(work, next(urls), case, server) for work in works] for _ in range(ROUNDS)]
    ours, rasterios, tilers = ([entry[i] for entry in rounds] for i in range(3))
    return {
        **case._asdict(),
        "latency_s": latency,
        "windows_per_s": case.grid.count / statistics.median(cost.wall for cost in ours),
        "bytes_of_file": [group[0].sent / file_bytes for group in (ours, rasterios, tilers)],
        "cpu_s": [
            statistics.median(cost.cpu for cost in group) for group in (ours, rasterios, tilers)
        ],
        "requests": [group[0].requests for group in (ours, rasterios, tilers)],
        "times_rasterio_wall": _ratio(rasterios, ours, "wall"),
        "times_rasterio_cpu": _ratio(rasterios, ours, "cpu"),
        "times_rio_tiler_wall": _ratio(tilers, ours, "wall"),
        "times_rio_tiler_cpu": _ratio(tilers, ours, "cpu"),
    }


def _ratio(theirs: list[Cost], ours: list[Cost], what: str) -> float:
    pairs = zip(theirs, ours, strict=True)
    return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)


def main(*, everything: bool = False) -> None:
    disk: list[dict[str, Any]] = []
    http: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="geosweep-windows-") as name:
        folder, image = Path(name), picture()
        for codec, block in dict.fromkeys(case[:2] for case in EVERY):
            these = [case for case in EVERY if case[:2] == (codec, block)]
            profile = {"driver": "COG", "blocksize": block, "overviews": "NONE", "compress": codec}
            path = write_raster(folder / these[0].file, image, **profile, **CODECS[codec])
            disk += [from_disk(folder, case) for case in these]
            remote = these if everything else [case for case in these if case == USUAL]
            http += [over_http(folder, case, wait) for case in remote for wait in LATENCIES]
            path.unlink()
    console = Console()
    console.print(_disk_table(disk))
    console.print(_http_table(http))
    content = {
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
        "rio-tiler": rio_tiler.__version__,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "disk": disk,
        "http": http,
    }
    save("windows", content)


def _layout(row: dict[str, Any]) -> str:
    return f"{row['codec']} {row['block']}, {row['size']} px {row['overlap']:.0%}"


def _disk_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"from disk, against every block decoded once by {THREADS} threads")
    for column in ("file and windows", "CPU-s", "limit", "share, CPU time", "share, wall"):
        table.add_column(column, justify="right")
    for row in rows:
        seconds = (f"{row['cpu_s']:.2f}", f"{row['limit_cpu_s']:.2f}")
        shares = (f"{row['share_of_limit_cpu']:.2f}", f"{row['share_of_limit_wall']:.2f}")
        table.add_row(_layout(row), *seconds, *shares)
    return table


def _http_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="over HTTP, ours against window by window: ours, rasterio, rio-tiler")
    columns = ("windows/s", "bytes ÷ file", "requests", "× rasterio", "× rio-tiler")
    for column in ("file and windows", "latency", *columns):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            _layout(row),
            f"{row['latency_s'] * 1000:.0f} ms",
            f"{row['windows_per_s']:.0f}",
            ", ".join(f"{share:.3f}" for share in row["bytes_of_file"]),
            ", ".join(map(str, row["requests"])),
            f"{row['times_rasterio_wall']:.1f} (CPU {row['times_rasterio_cpu']:.1f})",
            f"{row['times_rio_tiler_wall']:.1f} (CPU {row['times_rio_tiler_cpu']:.1f})",
        )
    return table


if __name__ == "__main__":
    main(everything=sys.argv[1:] == ["--all"])
