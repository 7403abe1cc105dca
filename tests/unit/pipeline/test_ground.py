"""Crops of the same ground from another raster: other resolution, CRS, rotation, edges, data types."""

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.transform import from_origin

from geosweep.models.crops import detection_bounds
from geosweep.pipeline import JobError, RasterError, predict_tile
from geosweep.pipeline.bands import BandSelection
from geosweep.pipeline.crop import EMPTY, PARTLY, WHOLE, cut_crops
from geosweep.pipeline.detect import Found
from geosweep.pipeline.ground import GroundRaster, ground_bounds
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.scene_reader import SceneHeader
from geosweep.pipeline.stream import WindowBatch
from geosweep.pipeline.windows import WindowGrid
from tests.cropmodels import brightness, height
from tests.detectors import PaintDetector, grey, paint_patches
from tests.rasters import UTM, textured, write_raster

NORTH_UP = from_origin(500_000, 4_978_000, 0.1, 0.1)


def header(transform=NORTH_UP, crs=UTM, scale=1.0, size=400):
    grid = WindowGrid.cover(size, size, 400, 0.0)
    full = (round(size * scale), round(size * scale))
    return SceneHeader(grid, (scale, scale), None, transform, crs, full, 0, 0)


def ground(path, wanted, **selection):
    chosen = BandSelection(**selection, use="crops")
    return GroundRaster(lambda: RasterSource(str(path), chosen, threads=1), "crop model x", wanted)


def cut(path, boxes, bands=(1,), wanted=None, **selection):
    raster = ground(path, len(bands) if wanted is None else wanted, bands=bands, **selection)
    try:
        windows = np.zeros(len(boxes), np.int64)
        return raster.cut(np.array(boxes, np.int64), windows, header())
    finally:
        raster.close()


def test_on_the_same_grid_crops_are_the_windows_own_to_the_byte(tmp_path):
    data = textured(400, 400)
    path = write_raster(tmp_path / "a.tif", data)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 380, (40, 2))
    boxes = np.hstack([low, low + rng.uniform(0.2, 60, (40, 2))]).astype(np.float32)
    found = Found(boxes, np.zeros(40, int), np.ones(40, np.float32), np.zeros(40, int))
    batch = WindowBatch(data[None], np.zeros(1, np.int64))
    for expand in (0, 9):
        here = cut_crops(found, batch, header().grid, expand, read=None)
        bounds = detection_bounds(boxes, expand, 400, 400)
        there = cut(path, bounds, bands=(1, 2, 3))
        assert (there.outside == WHOLE).all()
        for one, other in zip(here.crops, there.crops, strict=True):
            np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(
    angle=st.floats(-180, 180),
    turn=st.floats(-180, 180),
    pixel=st.floats(0.02, 3.0),
    ratio=st.floats(0.5, 2.0),
    x=st.integers(0, 350),
    y=st.integers(0, 350),
    degrees=st.booleans(),
    scale=st.sampled_from([1.0, 4.0]),
)
def test_the_pixels_found_cover_the_box_and_hardly_more(
    angle, turn, pixel, ratio, x, y, degrees, scale
):
    """Against rasterio's own transforms, for any two grids."""
    swept = NORTH_UP @ Affine.rotation(angle)
    crs = "EPSG:4326" if degrees else UTM
    size = np.array([pixel, -pixel * ratio]) * (1e-5 if degrees else 1)
    (origin_x,), (origin_y,) = rasterio.warp.transform(UTM, crs, [500_010.0], [4_977_990.0])
    other = Affine.translation(origin_x, origin_y) @ Affine.rotation(turn) @ Affine.scale(*size)
    box = np.array([[x, y, x + 30, y + 20]])
    (place,) = ground_bounds(box, header(swept, scale=scale), other, crs)
    left, top, right, bottom = box[0] * scale
    corners = [
        swept @ corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))
    ]
    xs, ys = rasterio.warp.transform(UTM, crs, *zip(*corners, strict=True))
    columns, rows = zip(*(~other @ point for point in zip(xs, ys, strict=True)), strict=True)
    low, high = np.array([min(columns), min(rows)]), np.array([max(columns), max(rows)])
    assert (place[:2] <= low + 0.02).all()
    assert (place[2:] >= high - 0.02).all()
    assert (place[:2] > low - 1.02).all()
    assert (place[2:] < np.maximum(high, place[:2] + 1) + 1.02).all()


@pytest.mark.parametrize("kind", ["coarse", "degrees", "rotated", "web-mercator"])
def test_a_detections_ground_is_found_in_another_grid(tmp_path, kind):
    """The other raster is painted from polygons by rasterio, without any of the pipeline."""
    data = grey(400, 600)
    red = [(20, 30, 60, 80), (300, 200, 350, 260), (500, 20, 560, 70)]
    blue = [(120, 30, 160, 70), (30, 300, 90, 350), (450, 300, 500, 370)]
    paint_patches(data, red, "red")
    paint_patches(data, blue, "blue")
    image = write_raster(tmp_path / "image.tif", data, transform=NORTH_UP)
    crs, grid, shape = {
        "coarse": (UTM, from_origin(499_990, 4_978_010, 0.37, 0.25), (260, 220)),
        "degrees": ("EPSG:4326", None, (400, 500)),
        "rotated": (
            UTM,
            Affine.translation(500_030, 4_977_980)
            @ Affine.rotation(-125)
            @ Affine.scale(0.2, -0.2)
            @ Affine.translation(-250, -250),
            (500, 500),
        ),
        "web-mercator": ("EPSG:3857", None, (400, 500)),
    }[kind]
    polygons = [
        (shapely.Polygon([NORTH_UP @ c for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]), value)
        for boxes, value in ((red, 30.0), (blue, 3.0))
        for x0, y0, x1, y1 in boxes
    ]
    polygons = [
        (rasterio.warp.transform_geom(UTM, crs, shapely.geometry.mapping(p)), v)
        for p, v in polygons
    ]
    if grid is None:
        outline = shapely.box(*rasterio.transform.array_bounds(400, 600, NORTH_UP))
        around = shapely.geometry.shape(
            rasterio.warp.transform_geom(UTM, crs, shapely.geometry.mapping(outline))
        ).bounds
        grid = rasterio.transform.from_bounds(*around, shape[1], shape[0])
    heights = rasterize(
        polygons, out_shape=shape, transform=grid, fill=10.0, dtype="float32", all_touched=True
    )
    assert {3.0, 10.0, 30.0} == set(np.unique(heights))
    other = write_raster(tmp_path / "chm.tif", heights[None], crs=crs, transform=grid)
    found = predict_tile(
        image, detector=PaintDetector(), crop_model={"size": height()}, crop_raster=other
    )
    assert len(found) == 6
    assert (found.size_label == np.where(found.label == "red", "high", "low")).all()
    assert (found.size_score > 0.9).all()


def test_beyond_the_edge_there_are_zeros_and_wholly_outside_there_is_no_class(tmp_path):
    # The other raster shows the left half, at half the resolution.
    data = np.full((1, 200, 100), 7, np.uint8)
    path = write_raster(tmp_path / "half.tif", data, transform=NORTH_UP @ Affine.scale(2))
    result = cut(path, [(20, 20, 40, 60), (180, 20, 220, 40), (200, 0, 240, 20), (300, 0, 320, 9)])
    assert result.outside.tolist() == [WHOLE, PARTLY, EMPTY, EMPTY]
    assert result.crops[0].shape == (20, 10, 1)
    assert (result.crops[0] == 7).all()
    assert result.crops[1].shape == (10, 20, 1)
    assert (result.crops[1][:, :10] == 7).all()
    assert (result.crops[1][:, 10:] == 0).all()


def test_rows_without_data_have_null_for_a_class_and_are_told(tmp_path, caplog):
    image = write_raster(
        tmp_path / "image.tif",
        paint_patches(grey(200, 400), [(20, 20, 60, 60), (300, 20, 350, 60)]),
    )
    half = np.full((1, 200, 200), 20, np.float32)
    other = write_raster(tmp_path / "chm.tif", half, transform=NORTH_UP)
    found = predict_tile(
        image,
        detector=PaintDetector(),
        crop_model=[height(), brightness(None)],
        crop_raster={"cropmodel": other},
    ).sort_values("xmin")
    assert found.cropmodel_label.iloc[0] == "high"
    assert found.cropmodel_label.isna().tolist() == [False, True]
    assert found.cropmodel_score.isna().tolist() == [False, True]
    assert found.cropmodel_1_label.notna().all()
    assert "1 crops have no pixel of data" in caplog.text


def test_floats_keep_their_units_and_holes_become_zero(tmp_path):
    data = np.full((1, 400, 400), 12.5, np.float32)
    data[0, 50:60] = -9999
    data[0, 70] = np.nan
    path = write_raster(tmp_path / "chm.tif", data, nodata=-9999)
    result = cut(path, [(0, 45, 10, 80), (0, 52, 10, 55)])
    crop = result.crops[0][:, :, 0]
    assert crop.dtype == np.float32
    assert (crop[:5] == 12.5).all()
    assert (crop[5:15] == 0).all()
    assert (crop[25] == 0).all()
    assert result.outside.tolist() == [WHOLE, EMPTY]
    # Rescaled, they are bytes as the detector's.
    (crop,) = cut(path, [(0, 0, 10, 10)], rescale=((0, 25),)).crops
    assert crop.dtype == np.uint8
    assert (crop == 127).all()


def test_what_needs_a_choice_is_asked_for(tmp_path):
    deep = write_raster(tmp_path / "nir.tif", textured(400, 400, 1).astype(np.uint16))
    box = [(0, 0, 9, 9)]
    with pytest.raises(RasterError, match=r"crop model x: .*uint16.*crop_models\.rescale"):
        cut(deep, box)
    four = write_raster(tmp_path / "4.tif", textured(400, 400, 4), photometric="MINISBLACK")
    with pytest.raises(RasterError, match="4 bands, and crops have three colours unless"):
        cut(four, box, bands=None, wanted=3)
    with pytest.raises(RasterError, match="takes 1 bands and gets 2; name as many"):
        cut(four, box, bands=(1, 2), wanted=1)
    with pytest.raises(RasterError, match=r"bands 1 to 4, and crop_models\.bands asks for 5"):
        cut(four, box, bands=(5,))
    flat = write_raster(tmp_path / "flat.tif", textured(400, 400, 1), crs=None)
    with pytest.raises(RasterError, match="no georeferencing"):
        cut(flat, box)
    with pytest.raises(RasterError, match=r"crop model x: .*gone\.tif can't be opened"):
        cut(tmp_path / "gone.tif", box)
    with pytest.raises(
        JobError, match="crop_raster is given for nir, but the crop models are: cropmodel"
    ):
        predict_tile(
            deep,
            detector=PaintDetector(),
            rescale=(0, 255),
            bands=[1, 1, 1],
            crop_model=height(),
            crop_raster={"nir": deep},
        )


def test_the_crops_of_a_window_are_one_read(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", textured(400, 400, 1))
    reads = []
    read = RasterSource.read
    monkeypatch.setattr(
        RasterSource, "read", lambda self, *box: reads.append(box) or read(self, *box)
    )
    boxes = np.array([(10, 10, 20, 20), (300, 200, 320, 230), (50, 90, 60, 99)])
    raster = cut(path, boxes)
    assert reads == [(10, 10, 320, 230)]
    monkeypatch.setattr("geosweep.pipeline.ground.MAX_READ_PIXELS", 1000)
    reads.clear()
    again = cut(path, boxes)
    assert reads == [tuple(box) for box in boxes.tolist()]
    for one, other in zip(raster.crops, again.crops, strict=True):
        np.testing.assert_array_equal(one, other)
