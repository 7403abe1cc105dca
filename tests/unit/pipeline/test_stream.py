"""The window stream: same pixels as rasterio, each block once, nodata, damage, bounded memory."""

import weakref
from collections import Counter

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geosweep.catalog.errors import RasterError
from geosweep.pipeline import iter_windows, predict_tile, stream
from geosweep.pipeline._ahead import read_ahead
from geosweep.pipeline.bands import BandSelection
from geosweep.pipeline.pixels import ArraySource, Strip
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.stream import StreamCounts, stream_windows
from geosweep.pipeline.windows import WindowGrid
from tests.detectors import PaintDetector
from tests.rasters import LAYOUTS, textured, write_raster


def collect(source, grid, wanted=None, **options):
    """All windows by number."""
    return {
        int(index): pixels
        for batch in stream_windows(source, grid, wanted, **options)
        for index, pixels in zip(batch.index, batch.pixels, strict=True)
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "overlap"), [(400, 0.05), (257, 0.3)])
def test_windows_hold_the_pixels_that_rasterio_reads(tmp_path, layout, size, overlap):
    path = write_raster(tmp_path / f"{layout}.img", textured(777, 1111), **LAYOUTS[layout])
    with RasterSource(str(path)) as source, rasterio.open(path) as truth:
        grid = WindowGrid.cover(source.width, source.height, size, overlap)
        windows = collect(source, grid)
        assert sorted(windows) == list(range(grid.count))
        for index, pixels in windows.items():
            x, y = grid.offsets(np.array([index]))[0]
            np.testing.assert_array_equal(
                pixels, truth.read([1, 2, 3], window=Window(x, y, size, size))
            )


class CountingSource(ArraySource):
    """Counts how often each block is read."""

    def __init__(self, image, block):
        super().__init__(image)
        self.block = block
        self.reads = Counter()

    def read(self, x0, y0, x1, y1):
        high, wide = self.block
        for top in range(y0 // high, -(-y1 // high)):
            for left in range(x0 // wide, -(-x1 // wide)):
                self.reads[top, left] += 1
        return super().read(x0, y0, x1, y1)


def test_each_block_is_read_once():
    source = CountingSource(textured(2100, 1500).transpose(1, 2, 0), (256, 256))
    grid = WindowGrid.cover(1500, 2100, 400, 0.05)
    assert len(collect(source, grid)) == grid.count
    assert set(source.reads.values()) == {1}
    assert len(source.reads) == 9 * 6


def test_bands_that_no_wanted_window_needs_are_not_read():
    source = CountingSource(textured(4000, 1500).transpose(1, 2, 0), (256, 256))
    grid = WindowGrid.cover(1500, 4000, 400, 0.05)
    wanted = np.zeros(grid.shape, bool)
    wanted[5, 1] = True
    windows = collect(source, grid, wanted)
    assert list(windows) == [5 * len(grid.xs) + 1]
    rows = {top for top, _ in source.reads}
    columns = {left for _, left in source.reads}
    assert rows == set(range(1900 // 256, -(-2300 // 256)))
    assert columns == set(range(380 // 256, -(-780 // 256)))


def test_wide_rasters_are_split_into_columns_with_the_same_windows(monkeypatch):
    image = textured(900, 3000).transpose(1, 2, 0)
    grid = WindowGrid.cover(3000, 900, 200, 0.1)
    whole = collect(ArraySource(image), grid, batch_size=7)
    monkeypatch.setattr(stream, "MAX_HELD_BYTES", 1)
    monkeypatch.setattr(stream, "MIN_COLUMN_PIXELS", 700)
    source = CountingSource(image, (256, 256))
    split = collect(source, grid, batch_size=7)
    assert sorted(split) == sorted(whole)
    assert all((split[index] == whole[index]).all() for index in whole)
    # Only blocks under a seam between columns are read again.
    assert max(source.reads.values()) == 2
    assert sum(source.reads.values()) < 1.6 * len(source.reads)


class EndlessSource:
    """Makes pixels as they are asked for and knows how many bytes of them are alive."""

    def __init__(self, width, height):
        self.width, self.height, self.full_size = width, height, (width, height)
        self.count, self.dtype, self.block = 3, np.dtype(np.uint8), (256, 256)
        self.transform = self.crs = None
        self.pixel_bytes, self.lanes = 3.0, 1
        self.alive = self.most = 0

    def read(self, x0, y0, x1, y1):
        data = np.zeros((3, y1 - y0, x1 - x0), np.uint8)
        self.alive += data.nbytes
        self.most = max(self.most, self.alive)
        weakref.finalize(data, self.release, data.nbytes)
        return Strip((x0, y0, x1, y1), data)

    def read_each(self, rectangles, ahead):
        return read_ahead([lambda bounds: self.read(*bounds)], rectangles, ahead)

    def release(self, nbytes):
        self.alive -= nbytes

    def close(self):
        pass


def test_memory_does_not_grow_with_the_rasters_height():
    most = {}
    for height in (4_000, 40_000):
        source = EndlessSource(3_000, height)
        grid = WindowGrid.cover(source.width, height, 400, 0.05)
        for _ in stream_windows(source, grid):
            pass
        most[height] = source.most
    # Three bands under a row of windows, two read ahead, one in the reader's hands, one handed over.
    # How close to that it comes depends on the threads' timing; the file of 40,000 rows has 157 bands.
    assert all(0 < bytes_ <= 7 * 3 * 256 * 3_000 for bytes_ in most.values())


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_batches_are_full_but_the_last(batch_size):
    source = ArraySource(textured(1000, 1000).transpose(1, 2, 0))
    grid = WindowGrid.cover(1000, 1000, 300, 0.1)
    sizes = [len(batch.index) for batch in stream_windows(source, grid, batch_size=batch_size)]
    assert sum(sizes) == grid.count
    assert set(sizes[:-1]) <= {batch_size}


def test_small_rasters_are_filled_up_with_zeros(tmp_path):
    data = textured(250, 300) | 1
    path = write_raster(tmp_path / "small.tif", data)
    with RasterSource(str(path)) as source:
        (pixels,) = collect(source, WindowGrid.cover(300, 250, 400, 0.05)).values()
    assert pixels.shape == (3, 400, 400)
    np.testing.assert_array_equal(pixels[:, :250, :300], data)
    assert not pixels[:, 250:].any()
    assert not pixels[:, :, 300:].any()


@pytest.mark.parametrize("kind", ["value", "nan", "alpha", "mask"])
def test_windows_without_data_are_skipped_and_counted(tmp_path, kind):
    data = np.maximum(textured(1000, 1000), 1)
    selection = BandSelection()
    if kind == "value":
        data[:, :500] = 0
        path = write_raster(tmp_path / "a.tif", data, nodata=0)
    elif kind == "nan":
        values = data.astype(np.float32)
        values[:, :500] = np.nan
        path = write_raster(tmp_path / "a.tif", values, nodata=np.nan)
        selection = BandSelection(rescale=((0.0, 255.0),))
    elif kind == "alpha":
        alpha = np.full((1, 1000, 1000), 255, np.uint8)
        alpha[:, :500] = 0
        path = write_raster(
            tmp_path / "a.tif", np.concatenate([data, alpha]), photometric="RGB", alpha="YES"
        )
    else:
        path = write_raster(tmp_path / "a.tif", data)
        mask = np.full((1000, 1000), 255, np.uint8)
        mask[:500] = 0
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(mask)
    counts = StreamCounts()
    with RasterSource(str(path), selection) as source:
        grid = WindowGrid.cover(1000, 1000, 250, 0.0)
        windows = collect(source, grid, counts=counts)
    assert sorted(windows) == list(range(8, 16))
    assert (counts.read, counts.nodata, counts.damaged) == (8, 8, 0)


def corrupt_jpeg(path, column, row):
    """Scramble the middle of one block's JPEG stream, so that it decodes to wrong pixels."""
    with rasterio.open(path) as dataset:
        tag = f"{column}_{row}"
        offset = int(dataset.get_tag_item(f"BLOCK_OFFSET_{tag}", "TIFF", bidx=1))
        size = int(dataset.get_tag_item(f"BLOCK_SIZE_{tag}", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    for place in range(offset + size // 2, offset + size // 2 + 400):
        content[place] = (content[place] * 7 + 13) % 256
    path.write_bytes(content)


def test_windows_on_a_corrupt_jpeg_block_fail_and_the_others_do_not(tmp_path):
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "JPEG"}
    path = write_raster(tmp_path / "j.tif", textured(2048, 2048), photometric="YCBCR", **layout)
    grid = WindowGrid.cover(2048, 2048, 512, 0.0)
    with RasterSource(str(path)) as source:
        clean = collect(source, grid)
    corrupt_jpeg(path, 1, 2)
    counts = StreamCounts()
    with RasterSource(str(path)) as source:
        windows = collect(source, grid, counts=counts)
    assert counts.damaged_windows == [2 * 4 + 1]
    assert (counts.read, counts.damaged) == (15, 1)
    assert all((clean[index] == pixels).all() for index, pixels in windows.items())


def test_corrupt_windows_are_named_by_the_calls_that_have_no_counts(tmp_path, caplog):
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "JPEG"}
    path = write_raster(tmp_path / "j.tif", textured(1024, 1024), photometric="YCBCR", **layout)
    corrupt_jpeg(path, 1, 0)
    assert len(list(iter_windows(path, size=512, overlap=0.0))) == 3
    assert "j.tif: 1 of its windows (1) are left out" in caplog.text
    caplog.clear()
    predict_tile(path, detector=PaintDetector(), patch_size=512, patch_overlap=0.0)
    assert "1 of its windows (1) are left out" in caplog.text


def test_a_truncated_file_raises_and_names_itself(tmp_path):
    path = write_raster(tmp_path / "cut.tif", textured(2000, 2000), driver="COG", compress="JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (
        RasterSource(str(path)) as source,
        pytest.raises(RasterError, match=r"cut\.tif can't be read"),
    ):
        collect(source, WindowGrid.cover(2000, 2000, 400, 0.05))


@pytest.mark.parametrize(
    ("profile", "dtype", "count", "word"),
    [
        ({}, np.uint16, 3, "source.rescale"),
        ({}, np.uint8, 4, "source.bands"),
        ({}, np.uint8, 1, "source.bands"),
        ({}, np.float32, 3, "source.rescale"),
    ],
)
def test_data_that_needs_a_choice_is_refused_with_the_key_to_set(
    tmp_path, profile, dtype, count, word
):
    data = textured(100, 100, count).astype(dtype)
    path = write_raster(tmp_path / "odd.tif", data, photometric="MINISBLACK", **profile)
    with pytest.raises(RasterError, match=word):
        RasterSource(str(path))


def test_bands_and_rescale_follow_rio_tilers_arithmetic(tmp_path):
    from rio_tiler.io import Reader

    data = (textured(300, 300, 5).astype(np.uint16)) * 40
    path = write_raster(tmp_path / "ms.tif", data, photometric="MINISBLACK")
    selection = BandSelection((5, 3, 2), ((0.0, 3000.0), (100.0, 9000.0), (0.0, 10200.0)))
    with RasterSource(str(path), selection) as source:
        assert source.dtype == np.uint8
        (pixels,) = collect(source, WindowGrid.cover(300, 300, 300, 0.0)).values()
    with Reader(str(path)) as reader:
        image = reader.read(indexes=(5, 3, 2))
        image.rescale(in_range=selection.rescale)
    np.testing.assert_array_equal(pixels, image.data)


def test_resolution_reads_the_best_overview(tmp_path):
    path = write_raster(
        tmp_path / "o.tif", textured(2048, 2048), driver="COG", overview_count=3, compress="DEFLATE"
    )
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1)[:2] == [2, 4]
    for wanted, width in ((0.1, 2048), (0.2, 1024), (0.3, 1024), (0.4, 512), (0.05, 2048)):
        with RasterSource(str(path), resolution=wanted) as source:
            assert (source.width, source.full_size) == (width, (2048, 2048))
