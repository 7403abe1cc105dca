"""Rasters of one band each, read as one, with rasterio as the judge."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.warp import Resampling, reproject

from geosweep.catalog.errors import RasterError
from geosweep.pipeline._rasterfile import RasterFile
from geosweep.pipeline.bands import BandRequest, BandSelection
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.stacked import StackedSource
from geosweep.pipeline.stream import stream_windows
from geosweep.pipeline.windows import WindowGrid
from tests.rasters import UTM, textured, write_raster

RGB = ("red", "green", "blue")
GRID = Affine(10, 0, 500_000, 0, -10, 4_978_000)


def one_band(folder, name, band, *, transform=GRID, **profile):
    return write_raster(folder / f"{name}.tif", band[None], transform=transform, **profile)


def stack(parts, *, bands=RGB, rescale=None, resolution=None, crops=None):
    def open_part(name, chosen, gsd):
        return RasterSource(str(parts[name]), chosen, resolution=gsd, threads=1)

    selection = BandSelection(bands, rescale, crops=crops or {})
    return StackedSource(list(parts), open_part, selection, resolution=resolution)


def parts_of(folder, image, names=RGB, **profile):
    return {
        name: one_band(folder, name, band, **profile)
        for name, band in zip(names, image, strict=True)
    }


TILED = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "DEFLATE"}


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize(("kind", "rescale"), [("uint8", None), ("uint16", ((0, 3000),))])
def test_three_files_read_as_one_file_of_three_bands(tmp_path, kind, rescale, nodata):
    image = textured(300, 420).astype(kind) * (1 if kind == "uint8" else 12)
    image[:, 40:200, 50:300] = 0
    image[1, 60:80, 60:90] = 7  # data in one band alone is data
    whole = write_raster(tmp_path / "whole.tif", image, transform=GRID, nodata=nodata, **TILED)
    parts = parts_of(tmp_path, image, nodata=nodata, **TILED)
    with (
        RasterSource(str(whole), BandSelection((1, 2, 3), rescale)) as one,
        stack(parts, rescale=rescale) as many,
    ):
        for name in ("width", "height", "full_size", "count", "dtype", "block", "transform", "crs"):
            assert getattr(one, name) == getattr(many, name), name
        assert one.pixel_bytes == many.pixel_bytes
        for box in ((0, 0, 420, 128), (33, 50, 177, 299), (0, 0, 420, 300)):
            first, second = one.read(*box), many.read(*box)
            assert np.array_equal(first.data, second.data)
            assert (first.valid is None) == (second.valid is None)
            assert first.valid is None or np.array_equal(first.valid, second.valid)
        grid = WindowGrid.cover(420, 300, 90, 0.2)
        for a, b in zip(stream_windows(one, grid), stream_windows(many, grid), strict=True):
            assert np.array_equal(a.pixels, b.pixels)
            assert np.array_equal(a.index, b.index)


def test_valid_is_what_any_band_has_and_a_band_without_nodata_has_all(tmp_path):
    image = np.zeros((3, 40, 40), np.uint8)
    image[0, :, :10] = image[2, :10] = 5
    parts = parts_of(tmp_path, image, nodata=0)
    with stack(parts) as source:
        valid = source.read(0, 0, 40, 40).valid
        assert valid is not None
        assert np.array_equal(valid, (image > 0).any(axis=0))
    parts["green"] = one_band(tmp_path, "green", image[1])
    with stack(parts) as source:
        assert source.read(0, 0, 40, 40).valid is None


@settings(max_examples=25, deadline=None)
@given(
    factor=st.sampled_from([1.5, 2, 3, 6]),
    shift=st.tuples(st.sampled_from([0, 0.25, -0.4, 0.77]), st.sampled_from([0, 0.3, -0.6])),
    box=st.tuples(st.integers(0, 59), st.integers(0, 59), st.integers(1, 60), st.integers(1, 60)),
)
def test_coarser_bands_lie_where_rasterio_puts_them(tmp_path_factory, factor, shift, box):
    """To the pixel, for grids that begin beside each other, too, and however a read is cut."""
    folder = tmp_path_factory.mktemp("parts")
    fine = textured(120, 120)
    side = int(120 / factor)
    coarse = np.arange(side * side, dtype=np.uint16).reshape(side, side)
    offset = Affine.translation(shift[0] * factor, shift[1] * factor)
    # A hair aside, so that no middle of a pixel lies on an edge, where rounding may choose.
    hair = Affine.translation(0.0049 * factor, 0.0049 * factor)
    placed = GRID @ offset @ hair @ Affine.scale(factor)
    parts = parts_of(folder, fine, **TILED)
    parts["nir"] = one_band(folder, "nir", coarse, transform=placed, blockysize=16)
    truth = np.zeros((120, 120), np.uint16)
    reproject(
        coarse,
        truth,
        src_transform=placed,
        src_crs=UTM,
        dst_transform=GRID,
        dst_crs=UTM,
        resampling=Resampling.nearest,
        dst_nodata=65535,
        init_dest_nodata=True,
    )
    x0, y0, wide, high = box
    with stack(parts, bands=("nir", "red", "green"), rescale=((0, 255 * 64),)) as source:
        assert source.full_size == (120, 120)
        assert source.transform == GRID
        strip = source.read(x0, y0, x0 + wide, y0 + high)
    here = truth[y0 : y0 + high, x0 : x0 + wide]
    inside = here != 65535  # beyond the coarse raster's edge its last pixel goes on
    assert inside.mean() > 0.5
    expected = np.clip(here / 64, 0, 255).astype(np.uint8)
    assert np.array_equal(strip.data[0][inside], expected[inside])


def test_each_block_of_each_file_is_read_once_whatever_the_block_sizes(tmp_path, monkeypatch):
    image = textured(1024, 900)
    parts = parts_of(tmp_path, image[:2], names=("red", "green"), **TILED)
    parts["blue"] = one_band(
        tmp_path, "blue", image[2], tiled=True, blockxsize=384, blockysize=320, compress="DEFLATE"
    )
    half = GRID @ Affine.scale(2)
    parts["nir"] = one_band(tmp_path, "nir", image[0, ::2, ::2], transform=half, **TILED)
    pixels: dict[str, int] = {}
    read = RasterFile.read

    def watched(self, bounds, how):
        x0, y0, x1, y1 = bounds
        pixels[self.name] = pixels.get(self.name, 0) + (x1 - x0) * (y1 - y0)
        return read(self, bounds, how)

    monkeypatch.setattr(RasterFile, "read", watched)
    crops = {"health": BandRequest(("nir", "red"))}
    with stack(parts, crops=crops) as source:
        assert source.count == 4
        assert source.crop_channels == {"health": (3, 0)}
        assert source.pixel_bytes == 3.25
        grid = WindowGrid.cover(source.width, source.height, 200, 0.1)
        assert sum(len(batch.index) for batch in stream_windows(source, grid)) == grid.count
    full, quarter = 1024 * 900, 512 * 450
    assert pixels == {str(path): quarter if name == "nir" else full for name, path in parts.items()}


def test_overviews_serve_a_resolution_and_none_is_read_coarser_than_it_is_offered(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 255, (3, 32, 32)), np.ones((1, 16, 16))).astype(np.uint8)
    cog = {
        "driver": "COG",
        "compress": "DEFLATE",
        "blocksize": 128,
        "overview_resampling": "nearest",
    }
    parts = parts_of(tmp_path, smooth, **cog)
    with stack(parts, resolution=40.0) as source:
        # 512 pixels of 10 m: there are overviews down to 128 pixels, of 40 m.
        assert (source.width, source.full_size, source.transform) == (128, (512, 512), GRID)
        assert np.array_equal(source.read(0, 0, 128, 128).data, smooth[:, ::4, ::4])
    # Without overviews at 20 m: the others are read at no coarser size.
    bare = smooth[2, ::2, ::2]
    parts["blue"] = one_band(
        tmp_path, "blue", bare, transform=GRID @ Affine.scale(2), driver="GTiff", **TILED
    )
    with stack(parts, resolution=40.0) as source:
        assert source.width == 256
        assert np.array_equal(source.read(0, 0, 256, 256).data[2], bare)
        assert np.array_equal(source.read(9, 30, 90, 200).data, smooth[:, 60:400:2, 18:180:2])


def test_names_numbers_and_files_of_several_bands(tmp_path):
    image = textured(64, 64, 5)
    parts = parts_of(tmp_path, image[:2], names=("red", "green"))
    many = write_raster(tmp_path / "many.tif", image[2:4], transform=GRID)
    with rasterio.open(many, "r+") as dataset:
        dataset.descriptions = ("coastal", "blue")
    parts["blue"] = many
    alpha = write_raster(tmp_path / "a.tif", image[[4, 0]], transform=GRID, ALPHA="YES")
    parts["nir"] = alpha
    crops = {"by_name": BandRequest(("nir",)), "by_number": BandRequest((2, 4))}
    with stack(parts, crops=crops) as source:
        data = source.read(0, 0, 64, 64).data
        assert np.array_equal(data, image[[0, 1, 3, 4]])
        assert source.crop_channels == {"by_name": (3,), "by_number": (1, 3)}
    with stack(parts, bands=("red", "red", "red")) as source:
        assert np.array_equal(source.read(0, 0, 64, 64).data, image[[0, 0, 0]])
        assert source.pixel_bytes == 1
    with pytest.raises(RasterError, match=r"bands 1 to 4, and crop model x asks for 5"):
        stack(parts, crops={"x": BandRequest((5,))})
    with pytest.raises(
        RasterError, match=r"band 'odd': .*many\.tif has 2 bands, none of them named"
    ):
        stack({"odd": many, **parts})
    with pytest.raises(RasterError, match="names 2 bands, but detectors take 3"):
        stack(parts, bands=("red", "green"))


def test_what_does_not_lie_on_the_same_ground_is_refused_in_a_sentence(tmp_path):
    image = textured(64, 64)
    good = parts_of(tmp_path, image)
    elsewhere = {
        "crs": {"crs": "EPSG:32613"},
        "beside": {"transform": GRID @ Affine.translation(5, 0)},
        "smaller": {"transform": GRID @ Affine.scale(0.5)},
        "turned": {"transform": GRID @ Affine.translation(1, 0) @ Affine.rotation(1)},
        "upside": {"transform": GRID @ Affine.translation(0, 64) @ Affine.scale(1, -1)},
        "nowhere": {"crs": None, "transform": None},
    }
    for name, place in elsewhere.items():
        other = write_raster(tmp_path / f"{name}.tif", image[:1], **{"transform": GRID, **place})
        with pytest.raises(RasterError, match=r"don't share one CRS and extent .*64 × 64 pixels"):
            stack({**good, "blue": other})
    # Without georeferencing at all, equal sizes do.
    bare = parts_of(tmp_path, image, crs=None, transform=None)
    with stack(bare) as source:
        assert source.transform is None
        assert np.array_equal(source.read(0, 0, 64, 64).data, image)
    bare["blue"] = write_raster(tmp_path / "b.tif", image[:1, :32], crs=None, transform=None)
    with pytest.raises(RasterError, match="without georeferencing"):
        stack(bare)


def test_sixteen_bits_need_rescale_and_the_message_names_the_scene(tmp_path):
    parts = parts_of(tmp_path, textured(32, 32).astype(np.uint16))
    with pytest.raises(RasterError, match=r"assets red, green, blue is uint16.*source\.rescale"):
        stack(parts)


def test_a_file_that_is_missing_or_cut_off_is_named_by_its_band(tmp_path):
    parts = parts_of(tmp_path, textured(256, 256), **TILED)
    with pytest.raises(RasterError, match=r"band 'green': .*gone\.tif can't be opened"):
        stack({**parts, "green": tmp_path / "gone.tif"})
    content = parts["green"].read_bytes()
    parts["green"].write_bytes(content[: len(content) // 2])
    with (
        stack(parts) as source,
        pytest.raises(RasterError, match=r"band 'green': .*can't be read"),
    ):
        source.read(0, 0, 256, 256)


@pytest.mark.parametrize("factor", [1, 2])
def test_corrupt_blocks_of_any_file_are_known_where_they_lie(tmp_path, factor):
    image = textured(512, 512)
    parts = parts_of(tmp_path, image[:2], names=("red", "green"), **TILED)
    jpeg = TILED | {"compress": "JPEG"}
    place = GRID @ Affine.scale(factor)
    blue = one_band(tmp_path, "blue", image[2, ::factor, ::factor], transform=place, **jpeg)
    parts["blue"] = blue
    with rasterio.open(blue) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
        size = int(dataset.get_tag_item("BLOCK_SIZE_1_0", "TIFF", bidx=1))
    content = bytearray(blue.read_bytes())
    content[offset + size // 2 : offset + size // 2 + 40] = bytes(range(40))
    blue.write_bytes(content)
    with stack(parts) as source:
        strip = source.read(0, 0, 512, 512)
        assert strip.damaged == ((128 * factor, 0, 256 * factor, 128 * factor),)
        # GDAL complains once; the damage is remembered.
        assert source.read(0, 0, 512, 128).damaged == strip.damaged
        assert source.read(0, 300, 512, 400).damaged == ()
