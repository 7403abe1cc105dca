"""Bytes read: those of the blocks that were decoded, each once, as they lie in the file."""

import numpy as np
import pytest

from geosweep.pipeline._rasterfile import RasterFile
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.stream import stream_windows
from geosweep.pipeline.windows import WindowGrid
from tests.rasters import textured, write_raster
from tests.servers import range_server

SIDE = 1024
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256}
LAYOUTS = {
    "pixels": {**TILED, "interleave": "pixel"},
    "bands": {**TILED, "interleave": "band"},
    "strips": {"blockysize": 8},
    "one strip": {"blockysize": SIDE},
}


def swept(href, wanted=None, **options):
    source = RasterSource(str(href), **options)
    grid = WindowGrid.cover(source.width, source.height, 300, 0.05)
    for _ in stream_windows(source, grid, wanted):
        pass
    source.close()
    return source


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_compression_stored_is_decoded(tmp_path, layout):
    path = write_raster(tmp_path / "a.tif", textured(SIDE, SIDE), **LAYOUTS[layout])
    source = swept(path)
    assert source.decoded_bytes == source.stored_bytes == 3 * SIDE**2


def test_blocks_that_no_window_needs_are_not_counted(tmp_path):
    path = write_raster(tmp_path / "a.tif", textured(SIDE, SIDE), **TILED)
    wanted = np.zeros((4, 4), bool)
    wanted[0, 0] = True  # 300 pixels: four blocks
    assert swept(path, wanted).stored_bytes == 3 * 4 * 256**2


def test_an_overviews_blocks_are_its_own(tmp_path):
    path = write_raster(tmp_path / "a.tif", textured(SIDE, SIDE), driver="COG", blocksize=256)
    fine, coarse = swept(path), swept(path, resolution=0.2)
    assert coarse.width == SIDE // 2
    assert coarse.decoded_bytes == fine.decoded_bytes // 4
    assert 0 < coarse.stored_bytes < fine.stored_bytes < path.stat().st_size


def test_it_is_nearly_what_a_server_sends_and_costs_no_request(tmp_path, monkeypatch):
    write_raster(tmp_path / "a.tif", textured(SIDE, SIDE), driver="COG", compress="JPEG")
    with range_server(tmp_path) as server:
        source = swept(f"{server.url}/a.tif")
        requests, sent = server.requests, server.sent
    assert 0 < sent - source.stored_bytes < 40_000  # the header, of which GDAL asks 32 KiB at first
    monkeypatch.setattr(RasterFile, "_stored_in", lambda *_: 0)
    with range_server(tmp_path) as server:
        assert swept(f"{server.url}/a.tif").stored_bytes == 0
        assert server.requests == requests


def test_formats_that_do_not_tell_count_nothing(tmp_path):
    path = write_raster(tmp_path / "a.png", textured(64, 64), driver="PNG", crs=None)
    source = swept(path)
    assert (source.decoded_bytes, source.stored_bytes) == (3 * 64**2, 0)
