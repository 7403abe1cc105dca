"""What reading a COG window by window costs in requests, bytes and decoded blocks; for `smoke.py`.

And what reading can't do without: every block decoded once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import rasterio
from rasterio.windows import Window

from benchmarks._guard import Measure
from geosweep.catalog import gdal_env
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.stream import stream_windows
from geosweep.pipeline.windows import WindowGrid
from tests.rasters import textured, write_raster
from tests.servers import range_server

SIDE, BLOCK, SIZE, OVERLAP, BATCH = 4000, 512, 400, 0.05, 8
_COG = {"driver": "COG", "blocksize": BLOCK, "overviews": "NONE"}
_ALPHA = {"photometric": "RGB", "alpha": "YES"}
LAYOUTS: dict[str, dict[str, object]] = {
    "jpeg": _COG | {"compress": "JPEG"},
    "deflate": _COG | {"compress": "DEFLATE"},
    "alpha": {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "ZSTD"} | _ALPHA,
}
"""Files without overviews, since those are never read here. Blocks with alpha are wanted twice: for the
pixels, and for which of them are data."""

Reader = Callable[[str], int]
"""Reads all windows of a raster; gives their number."""


def by_stream(href: str) -> int:
    """What a run does."""
    with RasterSource(href) as source:
        grid = WindowGrid.cover(source.width, source.height, SIZE, OVERLAP)
        return sum(len(batch.index) for batch in stream_windows(source, grid, batch_size=BATCH))


def decode_blocks(href: str, threads: int) -> None:
    """Every block once, in order, by GDAL with so many threads, and nothing done with it."""
    with rasterio.Env(**gdal_env(href)), rasterio.open(href, NUM_THREADS=str(threads)) as dataset:
        high = dataset.block_shapes[0][0]
        for top in range(0, dataset.height, high):
            rows = min(high, dataset.height - top)
            dataset.read(window=Window(0, top, dataset.width, rows))


def write_cogs(folder: Path) -> list[Path]:
    """A file of each layout."""
    image = textured(SIDE, SIDE, 4)
    return [
        write_raster(folder / f"{name}.tif", image[: 3 + ("alpha" in profile)], **profile)
        for name, profile in LAYOUTS.items()
    ]


def count_reading(cogs: list[Path], read: Reader = by_stream) -> list[Measure]:
    """Count what `read` asks of a server, and what it has the system read from disk.

    GDAL keeps no bytes of a local file, only decoded blocks: a block that is decoded again is read
    again, and the system's count tells.
    """
    found = []
    for cog in cogs:
        size, name = cog.stat().st_size, cog.stem
        with range_server(cog.parent) as server:
            read(f"{server.url}/{cog.name}")
            # Requests may be cut elsewhere with another GDAL; bytes vary with that by some headers.
            found += [
                Measure(f"{name}, HTTP: bytes sent ÷ file's bytes", server.sent / size, 0.01),
                Measure(f"{name}, HTTP: requests for a scene", server.requests, 0.1),
            ]
        read(str(cog))  # whatever is imported on first use is no part of what follows
        before = _bytes_read()
        read(str(cog))
        share = (_bytes_read() - before) / size
        found.append(Measure(f"{name}, disk: blocks decoded ÷ blocks", share, 0.02))
    return found


def _bytes_read() -> int:
    """Bytes that this process has read from files so far, by the system's count."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])
