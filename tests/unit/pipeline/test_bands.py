"""Bands of crop models: read in the same go as the detector's, rescaled on their own."""

import numpy as np
import pytest

from geosweep.pipeline import RasterError
from geosweep.pipeline.bands import BandRequest, BandSelection
from geosweep.pipeline.pixels import ArraySource
from geosweep.pipeline.raster import RasterSource
from tests.rasters import textured, write_raster


@pytest.fixture
def five(tmp_path):
    """Five bands of 8 bit."""
    data = textured(300, 300, 5)
    return data, str(write_raster(tmp_path / "five.tif", data, photometric="MINISBLACK"))


def read(href, selection):
    with RasterSource(href, selection) as source:
        return source.crop_channels, source.read(10, 20, 200, 150).data


def test_each_band_is_read_once_and_found_by_whoever_wants_it(five):
    data, href = five
    crops = {
        "nir": BandRequest((4,)),
        "swapped": BandRequest((3, 4, 2)),
        "own": BandRequest((5, 5)),
    }
    channels, pixels = read(href, BandSelection((3, 2, 1), crops=crops))
    assert channels == {"nir": (3,), "swapped": (0, 3, 1), "own": (4, 4)}
    assert pixels.shape[0] == 5
    part = data[:, 20:150, 10:200]
    np.testing.assert_array_equal(pixels[:3], part[[2, 1, 0]])
    for name, request in crops.items():
        wanted = part[[band - 1 for band in request.bands]]
        np.testing.assert_array_equal(pixels[list(channels[name])], wanted)


def test_other_crop_models_change_nothing_for_the_detector(five, tmp_path):
    data, href = five
    _, alone = read(href, BandSelection((1, 2, 3)))
    _, beside = read(href, BandSelection((1, 2, 3), crops={"nir": BandRequest((4,), ((0, 50),))}))
    np.testing.assert_array_equal(alone, beside[:3])
    # Nor for what counts as nodata: that is the detector's three bands' business.
    data[:3, :150] = 0
    path = write_raster(tmp_path / "n.tif", data, photometric="MINISBLACK", nodata=0)
    with RasterSource(
        str(path), BandSelection((1, 2, 3), crops={"nir": BandRequest((4,))})
    ) as source:
        assert not source.read(0, 0, 300, 150).valid.any()


def test_a_band_can_be_wanted_at_two_ranges(tmp_path):
    data = textured(200, 200, 4).astype(np.uint16) * 10
    href = str(write_raster(tmp_path / "u.tif", data, photometric="MINISBLACK"))
    crops = {"dim": BandRequest((1, 4), ((0, 500), (0, 5000))), "as-is": BandRequest((4,))}
    with RasterSource(href, BandSelection((1, 2, 3), ((0, 2550),), crops=crops)) as source:
        pixels = source.read(0, 0, 200, 200).data
        channels = source.crop_channels
    assert pixels.dtype == np.uint8

    def expected(band, high):
        return (np.clip(data[band - 1] / high, 0, 1) * 255).astype(int)

    for channel, (band, high) in zip(channels["dim"], ((1, 500), (4, 5000)), strict=True):
        assert np.abs(pixels[channel] - expected(band, high)).max() <= 1
    # Without a range of its own, band 4 gets the one that all of the detector's bands have.
    (channel,) = channels["as-is"]
    assert np.abs(pixels[channel] - expected(4, 2550)).max() <= 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (BandRequest((6,)), "bands 1 to 5, and crop model nir asks for 6"),
        (BandRequest(("NIR",)), "no band named 'NIR'"),
        (BandRequest((4, 5), ((0, 1), (0, 1), (0, 1))), "3 ranges for 2 bands"),
    ],
)
def test_bands_that_are_not_there_are_named(five, request_, words):
    with pytest.raises(RasterError, match=words):
        RasterSource(five[1], BandSelection((1, 2, 3), crops={"nir": request_}))


def test_a_range_that_nobody_gave_is_asked_for(tmp_path):
    data = textured(100, 100, 4).astype(np.uint16)
    href = str(write_raster(tmp_path / "u.tif", data, photometric="MINISBLACK"))
    three = ((0, 100), (0, 200), (0, 300))
    with pytest.raises(RasterError, match=r"band 4 is uint16, and source\.rescale does not say"):
        RasterSource(href, BandSelection((1, 2, 3), three, crops={"nir": BandRequest((4,))}))


def test_an_array_has_three_bands_to_choose_from():
    image = textured(50, 50).transpose(1, 2, 0)
    source = ArraySource(image, {"green": BandRequest((2,))})
    assert source.crop_channels == {"green": (1,)}
    with pytest.raises(RasterError, match="crop model nir wants the bands 4"):
        ArraySource(image, {"nir": BandRequest((4,))})
