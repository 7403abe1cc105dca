"""Remote rasters, read by several handles at a time: the same pixels, each byte once, and an end."""

import threading

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from geosweep.catalog.errors import RasterError
from geosweep.pipeline.bands import BandSelection
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.stacked import StackedSource
from geosweep.pipeline.stream import StreamCounts, stream_windows
from geosweep.pipeline.windows import WindowGrid
from tests.rasters import textured, write_raster
from tests.servers import range_server

SIDE = 1536
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "DEFLATE"}
COG = {"driver": "COG", "blocksize": 256, "compress": "JPEG", "overview_count": 2}
OPENING = 3
"""Requests until a raster is open."""


def swept(source, size=300):
    """Windows by number, and the counts."""
    counts = StreamCounts()
    grid = WindowGrid.cover(source.width, source.height, size, 0.05)
    windows = {
        int(index): pixels
        for batch in stream_windows(source, grid, counts=counts)
        for index, pixels in zip(batch.index, batch.pixels, strict=True)
    }
    assert counts.read == len(windows)
    assert counts.read + counts.nodata + counts.damaged == grid.count
    return windows, counts


def assert_same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert all((one[0][index] == pixels).all() for index, pixels in other[0].items())


class Together:
    """Lets requests wait for each other: proof that so many come at a time, whatever the machine does."""

    def __init__(self, server, parties, after):
        self.barrier = threading.Barrier(parties)
        self._left, self._after = parties, after
        self._server = server
        server.on_request = self

    def __call__(self, port):
        with self._server.lock:
            waits = self._server.requests > self._after and self._left > 0
            self._left -= waits
        if waits:
            self.barrier.wait(30)


def masked(folder):
    """A COG with a mask in it, whose directory lies in the header as the others do."""
    plain = write_raster(folder / "plain.tif", textured(SIDE, SIDE), **TILED)
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[300:900, 200:1000] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(plain, "r+") as dataset:
        dataset.write_mask(mask)
    copy(plain, folder / "mask.tif", driver="COG", blocksize=256, compress="DEFLATE")
    return folder / "mask.tif"


def scrambled(folder):
    """A JPEG with two blocks that GDAL decodes to wrong pixels."""
    path = write_raster(folder / "bad.tif", textured(SIDE, SIDE), **COG)
    content = bytearray(path.read_bytes())
    for tag in ("1_1", "4_3"):
        with rasterio.open(path) as dataset:
            start, size = (
                int(dataset.get_tag_item(f"BLOCK_{what}_{tag}", "TIFF", bidx=1))
                for what in ("OFFSET", "SIZE")
            )
        middle = slice(start + size // 2, start + size // 2 + 400)
        content[middle] = bytes((byte * 7 + 13) % 256 for byte in content[middle])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("layout", ["masked", "scrambled", "overview"])
def test_a_server_s_raster_gives_the_windows_of_a_file(tmp_path, layout):
    make = {"masked": masked, "scrambled": scrambled}.get(layout)
    path = make(tmp_path) if make else write_raster(tmp_path / "o.tif", textured(SIDE, SIDE), **COG)
    resolution = 0.2 if layout == "overview" else None
    with RasterSource(str(path), resolution=resolution) as source:
        assert source.lanes == 1
        local = swept(source)
        sizes = source.decoded_bytes, source.stored_bytes
    assert bool(local[1].nodata) == (layout == "masked")
    assert bool(local[1].damaged) == (layout == "scrambled")
    with (
        range_server(tmp_path) as server,
        RasterSource(f"{server}/{path.name}", resolution=resolution) as source,
    ):
        Together(server, 2, after=server.requests)
        assert_same(swept(source), local)
        assert (source.decoded_bytes, source.stored_bytes) == sizes


def test_several_bands_are_fetched_at_a_time_and_no_byte_twice(tmp_path):
    path = write_raster(tmp_path / "a.tif", textured(SIDE, SIDE), **TILED)
    with range_server(tmp_path) as server, RasterSource(f"{server}/a.tif") as source:
        assert server.requests == OPENING
        Together(server, source.lanes, after=OPENING)
        swept(source)
        # A request for each of six rows of blocks: what opened one handle opens all.
        assert server.requests == OPENING + 6
        assert server.sent <= path.stat().st_size * 1.02
        assert server.at_once == source.lanes == 4


def test_what_decodes_as_one_is_fetched_once(tmp_path):
    """A file that is a single strip, in bands of bounded height."""
    path = write_raster(
        tmp_path / "a.tif", textured(3000, 400), blockysize=3000, compress="DEFLATE"
    )
    with range_server(tmp_path) as server, RasterSource(f"{server}/a.tif") as source:
        assert source.lanes == 1
        swept(source)
        assert server.sent <= path.stat().st_size * 1.02


def test_a_file_that_ends_too_early_raises_and_leaves_no_thread(tmp_path):
    path = write_raster(tmp_path / "cut.tif", textured(SIDE, SIDE), **COG)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with range_server(tmp_path) as server, RasterSource(f"{server}/cut.tif") as source:
        with pytest.raises(RasterError, match=r"cut\.tif can't be read at rows"):
            swept(source)
        assert not reading()


def test_who_wants_no_more_waits_for_no_more_than_was_begun(tmp_path):
    write_raster(tmp_path / "a.tif", textured(4096, 256), **TILED)
    with range_server(tmp_path) as server, RasterSource(f"{server}/a.tif") as source:
        batches = stream_windows(source, WindowGrid.cover(256, 4096, 256, 0.0), batch_size=1)
        next(batches)
        batches.close()
        assert not reading()
        # One that was handed over, and five ahead of it.
        assert server.requests <= OPENING + 6


def reading():
    return [thread for thread in threading.enumerate() if thread.name == "geosweep-read-ahead"]


def test_the_rasters_of_a_scene_are_read_at_the_same_time(tmp_path):
    image = textured(SIDE, SIDE)
    for number, name in enumerate(("red", "green")):
        write_raster(tmp_path / f"{name}.tif", image[number : number + 1], **TILED)
    coarse = {**TILED, "transform": rasterio.Affine(0.2, 0, 500_000, 0, -0.2, 4_978_000)}
    write_raster(tmp_path / "blue.tif", image[2:, ::2, ::2], **coarse)

    def stack(place):
        return StackedSource(
            ["red", "green", "blue"],
            lambda name, chosen, gsd: RasterSource(f"{place}/{name}.tif", chosen, resolution=gsd),
            BandSelection(),
        )

    with stack(tmp_path) as source:
        local = swept(source)
    with range_server(tmp_path) as server, stack(server) as source:
        opened = server.requests
        Together(server, 2, after=opened + 1)  # the very first block is waited for
        assert_same(swept(source), local)
        # The coarse one has half as many rows of blocks.
        assert server.requests == opened + 6 + 6 + 3
