from __future__ import annotations

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.transform import Affine

from geosweep.catalog import RasterError
from geosweep.pipeline._imagery import read_preview
from tests.rasters import UTM, write_raster

SIDE = 512


def marked(dtype: type = np.uint8, background: int = 20, mark: int = 250) -> np.ndarray:
    """Dark, with one bright square at columns 300–340 and rows 100–140."""
    data = np.full((3, SIDE, SIDE), background, dtype)
    data[:, 100:140, 300:340] = mark
    return data


@pytest.mark.parametrize(
    ("degrees", "driver"), [(0, "GTiff"), (0, "COG"), (30, "GTiff"), (200, "GTiff")]
)
def test_pixels_come_to_lie_where_the_transform_puts_them(tmp_path, degrees, driver):
    transform = (
        Affine.translation(528_000, 4_978_000) @ Affine.rotation(degrees) @ Affine.scale(0.5, -0.5)
    )
    path = write_raster(tmp_path / "a.tif", marked(), crs=UTM, transform=transform, driver=driver)
    preview = read_preview(str(path), 256)
    assert max(preview.pixels.shape) == 256
    rows, columns = np.nonzero((preview.pixels[..., 0] > 200) & (preview.pixels[..., 3] > 0))
    left, bottom, right, top = preview.bounds
    height, width = preview.pixels.shape[:2]
    seen = (
        left + (columns.mean() + 0.5) / width * (right - left),
        top - (rows.mean() + 0.5) / height * (top - bottom),
    )
    to_mercator = Transformer.from_crs(UTM, "EPSG:3857", always_xy=True)
    meant = to_mercator.transform(*(transform @ (320.0, 120.0)))
    pixel = (right - left) / width
    assert np.hypot(seen[0] - meant[0], seen[1] - meant[1]) < pixel


def test_other_data_types_are_stretched(tmp_path):
    path = write_raster(tmp_path / "a.tif", marked(np.uint16, 1000, 3000))
    told = read_preview(str(path), 256, rescale=[(0, 4000)]).pixels
    inside = told[told[..., 3] == 255]
    assert abs(int(np.median(inside[:, 0])) - 64) <= 1
    assert inside[:, 0].max() == pytest.approx(191, abs=2)
    guessed = read_preview(str(path), 256).pixels
    assert guessed[guessed[..., 3] == 255][:, 0].max() == 255


def test_nodata_is_transparent_and_bands_can_be_chosen(tmp_path):
    data = np.stack([np.full((SIDE, SIDE), 10 * (k + 1), np.uint8) for k in range(4)])
    data[:, :, : SIDE // 2] = 0
    path = write_raster(tmp_path / "a.tif", data, nodata=0)
    preview = read_preview(str(path), 128, bands=[4, 2, 1])
    middle = preview.pixels[preview.pixels.shape[0] // 2]
    assert middle[20, 3] == 0
    assert middle[-20].tolist() == [40, 20, 10, 255]


def test_large_rasters_are_read_from_an_overview(tmp_path):
    path = write_raster(tmp_path / "a.tif", marked(), driver="COG", blocksize=128, overviews="AUTO")
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1)
    # Spoil the full resolution: what is shown can only come from the overviews.
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.write(np.zeros((3, SIDE, SIDE), np.uint8))
    assert read_preview(str(path), 100).pixels[..., 0].max() > 200
    assert read_preview(str(path), 512).pixels[..., 0].max() == 0


def test_what_cannot_be_shown_is_one_sentence(tmp_path):
    text = tmp_path / "a.tif"
    text.write_text("no raster")
    placeless = write_raster(tmp_path / "b.tif", marked(), crs=None)
    for path in (text, tmp_path / "missing.tif", placeless):
        with pytest.raises(RasterError, match=path.name):
            read_preview(str(path), 64)
    pixels = read_preview(str(placeless), 64, georeferenced=False)
    assert pixels.bounds == (0, -SIDE, SIDE, 0)
