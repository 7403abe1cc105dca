"""The guard of `make bench-smoke` refuses what does more than it did."""

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from benchmarks._guard import Measure, committed, is_better, refusals
from benchmarks._reading import OVERLAP, SIDE, SIZE, by_stream, count_reading, write_cogs
from geosweep.catalog import gdal_env
from geosweep.pipeline.windows import WindowGrid


@pytest.fixture(scope="module")
def cogs(tmp_path_factory):
    return write_cogs(tmp_path_factory.mktemp("guard"))


def window_by_window(href):
    """Read as people do who have no stream, with a cache that holds less than a row of blocks."""
    grid = WindowGrid.cover(SIDE, SIDE, SIZE, OVERLAP)
    with (
        rasterio.Env(**gdal_env(href) | {"GDAL_CACHEMAX": 4 << 20}),
        rasterio.open(href) as dataset,
    ):
        for x, y in grid.offsets(np.arange(grid.count)).tolist():
            dataset.read([1, 2, 3], window=Window(x, y, SIZE, SIZE))
    return grid.count


def test_the_stream_is_as_committed(cogs):
    assert refusals(count_reading(cogs, by_stream), committed()) == []


def test_a_reader_that_goes_window_by_window_is_refused(cogs):
    sentences = refusals(count_reading(cogs[:1], window_by_window), committed())
    assert [sentence.partition(":")[0] for sentence in sentences] == ["jpeg, HTTP"] * 2 + [
        "jpeg, disk"
    ]
    assert "bytes sent ÷ file's bytes: was 1.035 (+1% allowed), is " in sentences[0]


def test_more_than_is_allowed_is_refused_and_less_is_told():
    was = {"calls": 2.0, "bytes": 1.0}
    assert refusals([Measure("calls", 2.0), Measure("bytes", 1.009, 0.01)], was) == []
    assert len(refusals([Measure("calls", 2.01), Measure("bytes", 1.02, 0.01)], was)) == 2
    assert is_better(Measure("calls", 1.9), was)
    assert not is_better(Measure("bytes", 0.995, 0.01), was)


def test_what_nobody_committed_is_refused():
    assert refusals([Measure("new", 0.0)], {}) == ["new: 0, of which nothing is committed."]
