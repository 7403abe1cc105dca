"""`predict_tile`, `predict_image` and `iter_windows`, against DeepForest and known answers."""

from typing import ClassVar

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from geosweep.catalog.errors import JobError, RasterError
from geosweep.pipeline import iter_windows, predict_image, predict_tile
from tests.cropmodels import tiny
from tests.detectors import PaintDetector, grey, paint_patches
from tests.rasters import LAYOUTS, UTM, textured, write_raster
from tests.servers import range_server

BOXES = [(10, 10, 60, 70), (370, 200, 410, 260), (385, 385, 395, 395), (700, 370, 760, 800)]
COLUMNS = ["detection_id", "scene_id", "image_path", "datetime", "xmin", "ymin", "xmax", "ymax"]


def image(boxes=BOXES, height=1000, width=1300):
    return paint_patches(grey(height, width), boxes)


def found_boxes(frame):
    return sorted(
        map(tuple, frame[["xmin", "ymin", "xmax", "ymax"]].astype(int).to_numpy().tolist())
    )


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "jpeg" not in name])
def test_objects_are_found_once_and_whole_wherever_seams_fall(tmp_path, layout):
    path = write_raster(tmp_path / "a.img", image(), **LAYOUTS[layout])
    frame = predict_tile(path, detector=PaintDetector())
    assert found_boxes(frame) == sorted(BOXES)
    assert frame.crs == (None if layout == "png" else UTM)


def test_a_single_detection_is_in_image_coordinates(tmp_path):
    path = write_raster(tmp_path / "a.tif", image([(900, 700, 930, 740)]))
    for merge in ("core", "nms"):
        frame = predict_tile(path, detector=PaintDetector(), merge=merge)
        assert found_boxes(frame) == [(900, 700, 930, 740)]


@pytest.mark.parametrize("transform", [None, Affine(0.2, 0, 5e5, 0, -0.3, 5e6), "rotated"])
def test_geometry_is_where_rasterio_puts_the_box(tmp_path, transform):
    if transform == "rotated":
        transform = Affine(0.1, 0, 5e5, 0, -0.1, 5e6) @ Affine.rotation(20)
    path = write_raster(tmp_path / "a.tif", image(), transform=transform)
    frame = predict_tile(path, detector=PaintDetector())
    with rasterio.open(path) as dataset:
        for row in frame.itertuples():
            corners = np.array(row.geometry.exterior.coords[:-1])
            expected = [
                dataset.xy(y, x, offset="ul")
                for x in (row.xmin, row.xmax)
                for y in (row.ymin, row.ymax)
            ]
            for corner in expected:
                assert np.hypot(*(corners - corner).T).min() < 0.001


def test_no_detections_give_an_empty_frame_with_all_columns(tmp_path):
    path = write_raster(tmp_path / "a.tif", grey(500, 500))
    frame = predict_tile(path, detector=PaintDetector(), crop_model=tiny())
    assert len(frame) == 0
    assert list(frame.columns) == [
        *COLUMNS,
        "label",
        "score",
        "cropmodel_label",
        "cropmodel_score",
        "area_m2",
        "geometry",
    ]
    assert frame.crs == UTM


def test_images_in_memory_equal_files(tmp_path):
    data = image()
    path = write_raster(tmp_path / "a.tif", data)
    from_file = predict_tile(path, detector=PaintDetector(), crop_model=tiny())
    pixels = data.transpose(1, 2, 0)
    for array in (pixels, pixels / 255):
        from_array = predict_tile(image=array, detector=PaintDetector(), crop_model=tiny())
        assert found_boxes(from_array) == found_boxes(from_file)
        assert sorted(from_array.cropmodel_score) == sorted(from_file.cropmodel_score)
        assert from_array.crs is None


@pytest.mark.parametrize("expand", [0, 15])
def test_crops_are_the_pixels_of_the_box_also_where_context_leaves_the_window(tmp_path, expand):
    path = write_raster(tmp_path / "a.tif", image())
    crop_model = tiny()
    crop_model.expand = expand
    frame = predict_tile(path, detector=PaintDetector(), crop_model=crop_model)
    with rasterio.open(path) as dataset:
        whole = dataset.read()
    whole_object = frame[frame.xmax - frame.xmin < 60]
    for row in whole_object.itertuples():
        x0, y0 = max(int(row.xmin) - expand, 0), max(int(row.ymin) - expand, 0)
        crop = whole[:, y0 : int(row.ymax) + expand, x0 : int(row.xmax) + expand]
        expected = crop_model.classify(crop_model.prepare([crop.transpose(1, 2, 0)]))[0]
        assert row.cropmodel_score == pytest.approx(expected.max(), abs=1e-6)
        assert row.cropmodel_label == crop_model.labels[expected.argmax()]


def test_several_crop_models_each_have_their_columns_and_no_row_is_doubled(tmp_path):
    path = write_raster(tmp_path / "a.tif", image())
    models = {"one": tiny(), "two": tiny()}
    frame = predict_tile(path, detector=PaintDetector(), crop_model=models)
    assert len(frame) == len(BOXES)
    assert (frame.one_score == frame.two_score).all()
    listed = predict_tile(path, detector=PaintDetector(), crop_model=[tiny(), tiny()])
    assert {"cropmodel_label", "cropmodel_1_label"} <= set(listed.columns)
    assert listed.notna().drop(columns="datetime").all(axis=None)


def test_a_crop_transform_of_ones_own_is_used(tmp_path):
    path = write_raster(tmp_path / "a.tif", image())
    seen = []

    def transform(crop):
        seen.append(crop.shape)
        return np.zeros((3, 32, 32), np.float32)

    frame = predict_tile(
        path, detector=PaintDetector(), crop_model=tiny(), crop_transform=transform
    )
    assert len(seen) >= len(BOXES)
    assert frame.cropmodel_score.nunique() == 1


def test_a_bbox_keeps_what_has_its_centre_inside(tmp_path):
    path = write_raster(tmp_path / "a.tif", image())
    whole = predict_tile(path, detector=PaintDetector(), crs="EPSG:4326")
    west, south, _, north = whole.total_bounds
    middle = sum(sorted(whole.geometry.apply(lambda g: g.centroid.x))[2:4]) / 2
    part = predict_tile(
        path,
        detector=PaintDetector(),
        bbox=(west - 1, south - 1, middle, north + 1),
        crs="EPSG:4326",
    )
    assert set(part.detection_id) == {
        row.detection_id for row in whole.itertuples() if row.geometry.centroid.x <= middle
    }
    assert len(part) == 3


@pytest.mark.parametrize("resolution", [0.2, 0.15, 0.05])
def test_detection_at_another_resolution_gives_boxes_in_source_pixels(tmp_path, resolution):
    boxes = [(64, 64, 192, 160), (640, 320, 768, 480), (960, 800, 1120, 928)]
    path = write_raster(
        tmp_path / "a.tif",
        image(boxes, 1024, 1280),
        driver="COG",
        compress="DEFLATE",
        overview_resampling="NEAREST",
    )

    class Tolerant(PaintDetector):
        """Resampled edges are mixtures: take anything reddish."""

        def _one(self, pixels):
            reddish = (pixels[0].astype(int) - pixels[1] > 110) & (pixels[2] < 120)
            return super()._one(np.where(reddish, np.array([255, 0, 0])[:, None, None], 10))

    frame = predict_tile(path, detector=Tolerant(), resolution=resolution)
    frame = frame[(frame.xmax - frame.xmin) > 50]
    found = frame[["xmin", "ymin", "xmax", "ymax"]].sort_values("xmin").to_numpy()
    np.testing.assert_allclose(found, boxes, atol=4)


def test_a_raster_smaller_than_a_window(tmp_path):
    path = write_raster(tmp_path / "a.tif", image([(10, 20, 50, 60)], 90, 130))
    assert found_boxes(predict_tile(path, detector=PaintDetector())) == [(10, 20, 50, 60)]
    assert found_boxes(predict_image(path=path, detector=PaintDetector())) == [(10, 20, 50, 60)]


def test_predict_image_looks_at_everything_at_once(tmp_path):
    class Recorder(PaintDetector):
        shapes: ClassVar[list[tuple[int, ...]]] = []

        def detect(self, images):
            self.shapes.append(images.shape)
            return super().detect(images)

    frame = predict_image(image().transpose(1, 2, 0), detector=Recorder())
    assert Recorder.shapes == [(1, 3, 1000, 1300)]
    assert found_boxes(frame) == sorted(BOXES)
    with pytest.raises(JobError, match="predict_tile"):
        predict_image(image().transpose(1, 2, 0), patch_size=400)


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({}, JobError, "path or image"),
        ({"path": "nowhere.tif"}, RasterError, "nowhere.tif"),
        ({"image": np.zeros((10, 10), np.uint8)}, RasterError, "shape"),
        ({"image": np.full((10, 10, 3), 1000, np.uint16)}, RasterError, "uint16"),
        ({"image": np.full((10, 10, 3), 200.0)}, RasterError, "200"),
    ],
)
def test_bad_input_is_named(arguments, error, word):
    with pytest.raises(error, match=word):
        predict_tile(**arguments, detector=PaintDetector())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"patch_size": 7}, "size is 7"),
        ({"patch_overlap": 1.0}, "overlap is 1.0"),
        ({"merge": "best"}, "windows is 'best'"),
        ({"iou_threshold": 0.0}, "iou is 0.0"),
        ({"bbox": (1, 5, 2, 4)}, "bbox"),
        ({"crs": "EPSG:nowhere"}, "EPSG:nowhere"),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path, arguments, word):
    path = write_raster(tmp_path / "a.tif", grey(100, 100))
    with pytest.raises(JobError, match=word):
        predict_tile(path, detector=PaintDetector(), **arguments)


def test_16_bit_data_need_rescale_and_then_work(tmp_path):
    data = image().astype(np.uint16) * 16
    path = write_raster(tmp_path / "a.tif", data)
    with pytest.raises(RasterError, match=r"source\.rescale"):
        predict_tile(path, detector=PaintDetector())
    frame = predict_tile(path, detector=PaintDetector(), rescale=[0, 255 * 16])
    assert found_boxes(frame) == sorted(BOXES)


def test_windows_come_with_map_coordinates(tmp_path):
    data = textured(900, 1100, count=4).astype(np.uint16)
    path = write_raster(tmp_path / "a.tif", data, photometric="MINISBLACK")
    windows = list(iter_windows(path, size=400, overlap=0.1))
    assert [w.attrs["window"] for w in windows] == list(range(len(windows)))
    with rasterio.open(path) as dataset:
        for window in windows:
            assert isinstance(window, xr.DataArray)
            assert window.dims == ("band", "y", "x")
            assert window.dtype == np.uint16
            assert window.odc.crs == UTM
            x, y = window.attrs["col_off"], window.attrs["row_off"]
            np.testing.assert_array_equal(window, data[:, y : y + 400, x : x + 400])
            centre = dataset.xy(y + 7, x + 13)
            assert (float(window.x[13]), float(window.y[7])) == pytest.approx(centre, abs=1e-6)
    picked = next(iter_windows(path, size=400, bands=[4, 1]))
    np.testing.assert_array_equal(picked, data[[3, 0], :400, :400])
    assert picked.band.to_numpy().tolist() == [4, 1]


def test_windows_of_a_raster_without_georeferencing_count_pixels(tmp_path):
    path = write_raster(tmp_path / "a.png", textured(500, 500), driver="PNG", crs=None)
    last = list(iter_windows(path, size=400, overlap=0.0))[-1]
    assert (float(last.x[0]), float(last.y[0])) == (100.5, 100.5)


def test_windows_stop_early_without_leaving_the_file_open(tmp_path):
    path = write_raster(tmp_path / "a.tif", textured(2000, 2000))
    windows = iter_windows(path)
    next(windows)
    windows.close()
    path.unlink()


def test_remote_cogs_are_read_once_in_few_requests(tmp_path):
    path = write_raster(
        tmp_path / "a.tif", textured(3000, 3000), driver="COG", compress="JPEG", blocksize=512
    )
    local = predict_tile(path, detector=PaintDetector())
    with range_server(tmp_path) as server:
        remote = predict_tile(f"{server.url}/a.tif", detector=PaintDetector())
    assert found_boxes(remote) == found_boxes(local)
    # 64 windows; every base block once, overviews never.
    assert server.sent <= 1.02 * path.stat().st_size
    assert server.requests < 40


def test_a_signed_url_never_reaches_the_rows(tmp_path):
    write_raster(tmp_path / "a.tif", image())
    with range_server(tmp_path) as server:
        frame = predict_tile(f"{server.url}/a.tif?sig=SECRET&se=2030", detector=PaintDetector())
        assert any("SECRET" in query for query in server.queries)
    assert len(frame) == len(BOXES)
    assert "SECRET" not in frame.drop(columns="geometry").to_csv()


@pytest.mark.parametrize("seed", range(40))
def test_objects_of_any_size_stand_once_and_whole_whatever_the_windows(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(300, 1300, 2))
    cell = int(rng.choice([60, 120, 250, 420]))
    boxes = []
    for x in range(3, width - cell, cell):
        for y in range(3, height - cell, cell):
            wide, high = (int(side) for side in rng.integers(6, cell - 12, 2))
            left, top = (
                x + int(rng.integers(0, cell - 8 - wide)),
                y + int(rng.integers(0, cell - 8 - high)),
            )
            boxes.append((left, top, left + wide, top + high))
    frame = predict_tile(
        image=image(boxes, height, width).transpose(1, 2, 0),
        detector=PaintDetector(),
        patch_size=int(rng.integers(150, 420)),
        patch_overlap=float(rng.uniform(0.02, 0.45)),
    )
    assert found_boxes(frame) == sorted(boxes)
