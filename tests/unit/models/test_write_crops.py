"""Crops on disk: the pixels that predictions see, in folders that hold any label."""

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from geosweep.catalog.errors import AnnotationError, RasterError
from geosweep.models import CropModel, annotation_frame, crop_bounds, write_crops
from geosweep.models.data import cutting
from geosweep.models.data.cropfiles import folder_label, label_folder, read_crop
from geosweep.models.data.cropframe import labelled_boxes, sample_per_class, split_by_class
from geosweep.models.data.cutting import CropRaster
from geosweep.pipeline import predict_tile
from tests.detectors import PaintDetector
from tests.rasters import LAYOUTS, textured, write_raster

HEIGHT, WIDTH = 500, 700
# Inside, over the corner of four windows, at each edge, one pixel, long and narrow.
OUTLINES = [
    (30, 40, 71, 63),
    (270, 280, 330, 316),
    (0, 100, 17, 140),
    (660, 0, 700, 22),
    (610, 470, 655, 500),
    (222, 333, 223, 334),
    (400, 30, 404, 110),
]


def outlined():
    """Textured ground with red outlines, which PaintDetector finds; inside they differ."""
    image = np.clip(textured(HEIGHT, WIDTH), 0, 200)
    for x0, y0, x1, y1 in OUTLINES:
        inside = image[:, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].copy()
        image[:, y0:y1, x0:x1] = np.array([255, 0, 0], np.uint8)[:, None, None]
        image[:, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = inside
    return image


def pool(num_bands=3, classes=2):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_bands, classes))


def content(crop):
    return crop.shape, crop.tobytes()


@pytest.mark.parametrize("expand", [0, 11])
def test_training_crops_are_prediction_crops_to_the_byte(tmp_path, expand):
    path = write_raster(tmp_path / "a.tif", outlined(), tiled=True, blockxsize=128, blockysize=128)
    seen = []

    def transform(crop):
        seen.append(content(crop))
        return torch.zeros(3, 8, 8)

    model = CropModel(2, model=pool(), crop_transform=transform, expand=expand)
    found = predict_tile(
        path, detector=PaintDetector(), crop_model=model, patch_size=300, patch_overlap=0.2
    )
    boxes = found[["xmin", "ymin", "xmax", "ymax"]]
    assert sorted(map(tuple, boxes.to_numpy().astype(int))) == sorted(OUTLINES)
    files = model.write_crops(boxes, found.label, path, tmp_path / "crops")
    written = [content(read_crop(file)) for file in files]
    assert set(written) == set(seen) and len(set(written)) == len(OUTLINES)
    in_place = CropModel(2, model=model.model, resize=(8, 8), expand=expand)
    expected = in_place.predict(found.drop(columns=["cropmodel_label", "cropmodel_score"]), path)
    again = predict_tile(
        path, detector=PaintDetector(), crop_model=in_place, patch_size=300, patch_overlap=0.2
    )
    again = again.set_index("detection_id").loc[expected.detection_id]
    np.testing.assert_array_equal(again.cropmodel_score, expected.cropmodel_score)
    assert list(again.cropmodel_label) == list(expected.cropmodel_label)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_cut_right(tmp_path, layout):
    profile = dict(LAYOUTS[layout])
    path = write_raster(tmp_path / "a.img", textured(300, 777), **{"crs": None, **profile})
    with rasterio.open(path) as dataset:
        whole = dataset.read()
    rng = np.random.default_rng(0)
    corner = rng.uniform([-20, -20], [770, 290], (60, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 90, (60, 2))], axis=1)
    with CropRaster(path) as raster:
        cut = dict(raster.crops(boxes, 4))
    assert sorted(cut) == list(range(60))
    for i, (x0, y0, x1, y1) in enumerate(crop_bounds(np.trunc(boxes), 4, 777, 300)):
        np.testing.assert_array_equal(cut[i], whole[:, y0:y1, x0:x1].transpose(1, 2, 0))


def test_few_reads_and_never_the_whole_raster(tmp_path, monkeypatch):
    path = write_raster(
        tmp_path / "a.tif",
        np.zeros((3, 2000, 3000), np.uint8),
        tiled=True,
        blockxsize=256,
        blockysize=256,
    )
    monkeypatch.setattr(cutting, "CELL", 512)
    reads = []
    read = CropRaster.read
    monkeypatch.setattr(
        CropRaster, "read", lambda self, *box: reads.append(box) or read(self, *box)
    )
    rng = np.random.default_rng(0)
    near = rng.uniform(1000, 1400, (200, 2))
    far = np.array([[10, 10], [2900, 1900]])
    corner = np.concatenate([near, far])
    with CropRaster(path) as raster:
        assert len(list(raster.crops(np.concatenate([corner, corner + 30], axis=1)))) == 202
    assert len(reads) <= 6
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in reads]
    assert max(areas) <= (512 + 30) ** 2
    assert sum(areas) < 2 * 430**2


def test_deepforest_squares_its_training_crops_and_ours_are_the_boxes(tmp_path):
    peer = pytest.importorskip("deepforest.model")
    write_raster(tmp_path / "a.tif", outlined())
    box = OUTLINES[-1]
    theirs = peer.CropModel(model=nn.Identity())
    theirs.write_crops(str(tmp_path), ["a.tif"], [box], ["x"], str(tmp_path / "theirs"))
    (square,) = (tmp_path / "theirs" / "x").iterdir()
    assert Image.open(square).size == (80, 80)
    model = CropModel(2, model=pool())
    # Its own call, by name.
    (ours,) = model.write_crops(
        root_dir=tmp_path, images=["a.tif"], boxes=[box], labels=["x"], savedir=tmp_path / "ours"
    )
    assert Image.open(ours).size == (4, 80)


def test_names_never_collide_and_the_same_crop_has_the_same_name(tmp_path):
    for folder, value in (("one", 10), ("two", 200)):
        (tmp_path / folder).mkdir()
        write_raster(tmp_path / folder / "a.tif", np.full((3, 50, 60), value, np.uint8))
    boxes, labels = [(5, 5, 20, 20)] * 2, ["x", "x"]
    images = [tmp_path / "one" / "a.tif", tmp_path / "two" / "a.tif"]
    files = write_crops(boxes, labels, images, tmp_path / "crops")
    assert [read_crop(file).max() for file in files] == [10, 200]
    # Another context, in a call of its own.
    files += write_crops(boxes, labels, images, tmp_path / "crops", expand=3)
    assert len({*files}) == 4 == len(list((tmp_path / "crops" / "x").iterdir()))
    again = write_crops(boxes[::-1], labels, images[::-1], tmp_path / "crops")
    assert again == files[1::-1]
    assert len(list((tmp_path / "crops" / "x").iterdir())) == 4


@given(st.text(min_size=1, max_size=40))
def test_any_label_is_one_folder_and_comes_back(label):
    try:
        name = label_folder(label)
    except (AnnotationError, UnicodeEncodeError):
        assert len(label.encode(errors="replace")) * 3 > 200 or not label.isprintable()
        return
    assert "/" not in name and "\\" not in name and name not in (".", "..") and "\0" not in name
    assert folder_label(name) == label


def test_labels_that_are_no_folder_names(tmp_path):
    path = write_raster(tmp_path / "a.tif", outlined())
    labels = ["Quercus/alba", "..", "50% dead", "Ünïcode", 7]
    files = write_crops(OUTLINES[:5], labels, path, tmp_path / "crops")
    assert [file.parent.name for file in files] == [
        "Quercus%2Falba",
        "%2E%2E",
        "50%25 dead",
        "Ünïcode",
        "7",
    ]
    assert all(file.parent.parent == tmp_path / "crops" for file in files)
    model = CropModel(model=pool(classes=5), resize=(8, 8))
    model.load_from_disk(tmp_path / "crops")
    assert set(model.labels) == {"Quercus/alba", "..", "50% dead", "Ünïcode", "7"}


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([(5, 5, 9, 9)], ["x", "y"], "1 boxes, 2 labels"),
        ([(5, 5, 9, 9)], [None], "Box 0 .*a label"),
        ([(5, 5, 9, 9)], [float("nan")], "Box 0 .*a label"),
        ([(5, 5, 9, 9), (9, 5, 5, 9)], ["x", "y"], "Box 1 .*xmin ≤ xmax"),
        ([(5, 5, float("nan"), 9)], ["x"], "Box 0"),
        ([(5, 5, 9, 9), (800, 5, 810, 9)], ["x", "y"], r"Box 1.*outside.*700 × 500"),
        ([(-30, 5, -20, 9)], ["x"], "outside"),
        ([(5, 5, 9, 9)], ["x" * 300], "too long"),
        ("root", ["x"], "DeepForest's order"),
    ],
)
def test_boxes_and_labels_that_can_not_be_used(tmp_path, boxes, labels, message):
    path = write_raster(tmp_path / "a.tif", np.zeros((3, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(AnnotationError, match=message):
        write_crops(boxes, labels, path, tmp_path / "crops")


def test_boxes_over_the_edge_and_without_area(tmp_path):
    image = outlined()
    path = write_raster(tmp_path / "a.tif", image)
    boxes = [(-9.5, -3, 12, 8), (690, 480, 760, 560), (50, 60, 50, 60), (50.9, 60.9, 51.2, 61.4)]
    files = write_crops(boxes, list("abcd"), path, tmp_path / "crops")
    expected = [image[:, :8, :12], image[:, 480:, 690:], *[image[:, 60:61, 50:51]] * 2]
    for file, pixels in zip(files, expected, strict=True):
        np.testing.assert_array_equal(read_crop(file), pixels.transpose(1, 2, 0))


def test_no_boxes_give_no_crops(tmp_path):
    assert write_crops(np.zeros((0, 4)), [], [], tmp_path / "crops") == []


def test_missing_arguments_and_rasters(tmp_path):
    model = CropModel(2, model=pool())
    with pytest.raises(AnnotationError, match="needs image_path"):
        model.write_crops([(0, 0, 1, 1)], ["x"], savedir=tmp_path)
    with pytest.raises(AnnotationError, match="needs savedir"):
        model.write_crops([(0, 0, 1, 1)], ["x"], "a.tif")
    with pytest.raises(RasterError, match=r"gone\.tif does not exist"):
        model.write_crops([(0, 0, 1, 1)], ["x"], tmp_path / "gone.tif", tmp_path / "crops")


def test_rescaled_crops_are_the_pipelines(tmp_path):
    deep = np.concatenate([outlined().astype(np.uint16) * 10, np.ones((1, HEIGHT, WIDTH))])
    path = write_raster(tmp_path / "a.tif", deep.astype(np.uint16)[[3, 0, 1, 2]], nodata=1)
    choice = {"bands": [2, 3, 4], "rescale": [(0, 2550)] * 3}
    seen = []

    def transform(crop):
        seen.append(content(crop))
        return torch.zeros(3, 8, 8)

    model = CropModel(2, model=pool(), crop_transform=transform)
    found = predict_tile(path, detector=PaintDetector(), crop_model=model, **choice)
    boxes = found[["xmin", "ymin", "xmax", "ymax"]]
    files = write_crops(boxes, found.label, path, tmp_path / "crops", **choice)
    assert len(files) == len(OUTLINES)
    assert {content(read_crop(file)) for file in files} <= set(seen)


def test_other_bands_and_data_types(tmp_path):
    deep = (textured(60, 80, 4).astype(np.uint16) * 37) % 3001
    path = write_raster(tmp_path / "deep.tif", deep)

    def cut(file, count, **options):
        (crop,) = write_crops([(10, 10, 40, 30)], ["x"], file, tmp_path / "crops", **options)
        pixels = read_crop(crop, count)
        assert pixels.shape == (20, 30, count)
        return crop.suffix, pixels

    with pytest.raises(RasterError, match="has 4 bands"):
        cut(path, 3)
    with pytest.raises(RasterError, match=r"uint16.*rescale"):
        cut(path, 3, bands=[3, 2, 1])
    suffix, crop = cut(path, 4, bands=[4, 3, 2, 1], rescale=[(0, 3000)] * 4)
    expected = np.floor(deep[::-1, 10:30, 10:40] / 3000 * 255)
    assert suffix == ".tif" and crop.dtype == np.uint8
    assert np.abs(crop - expected.transpose(1, 2, 0)).max() <= 1
    suffix, crop = cut(path, 1, bands=[2], rescale=(0, 3000))
    assert suffix == ".png" and crop.dtype == np.uint8
    for bad in ((3000, 0), [(0, 1)] * 2):
        with pytest.raises(RasterError, match="rescale is"):
            cut(path, 3, bands=[1, 2, 3], rescale=bad)
    with pytest.raises(RasterError, match="and bands asks for 5"):
        cut(path, 1, bands=[5])

    heights = np.random.default_rng(0).normal(12, 5, (1, 60, 80)).astype(np.float32)
    path = write_raster(tmp_path / "chm.tif", heights)
    suffix, crop = cut(path, 1, bands=[1])
    assert (suffix, crop.dtype) == (".tif", np.float32)
    np.testing.assert_array_equal(crop[..., 0], heights[0, 10:30, 10:40])
    (file,) = (tmp_path / "crops" / "x").glob("chm*")
    with pytest.raises(AnnotationError, match="has 1 bands, the crop model takes 3"):
        read_crop(file)


def test_a_dataset_of_boxes_sampled_and_split(tmp_path):
    write_raster(tmp_path / "a.tif", outlined())
    write_raster(tmp_path / "b.tif", outlined()[:, ::-1])
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 400, (60, 2))
    labels = ["common"] * 48 + ["rare"] * 12
    images = ["a.tif", "b.tif"] * 30
    frame = annotation_frame(
        images, np.concatenate([corner, corner + 20], 1), labels, root_dir=tmp_path
    )
    negative = annotation_frame(["c.tif"], [[0, 0, 0, 0]], [None], root_dir=tmp_path)
    frame = pd.concat([frame, negative], ignore_index=True)
    frame.attrs["root_dir"] = str(tmp_path)
    model = CropModel(2, model=pool())

    def counts(folder):
        return {f.name: len(list(f.iterdir())) for f in sorted(folder.iterdir())}

    assert len(model.write_crops_from(frame, tmp_path / "all")) == 60
    assert counts(tmp_path / "all") == {"common": 48, "rare": 12}
    first = model.write_crops_from(frame, tmp_path / "some", per_class="min", val_share=0.25)
    assert counts(tmp_path / "some" / "train") == {"common": 9, "rare": 9}
    assert counts(tmp_path / "some" / "val") == {"common": 3, "rare": 3}
    assert model.write_crops_from(frame, tmp_path / "some", per_class=12, val_share=0.25) == first
    other = model.write_crops_from(frame, tmp_path / "x", per_class=12, val_share=0.25, seed=1)
    assert {f.name for f in other} != {f.name for f in first}
    frame.to_csv(tmp_path / "boxes.csv", index=False)
    assert len(model.write_crops_from(frame[:60], tmp_path / "csv", per_class=5)) == 10
    with pytest.raises(AnnotationError, match="no column 'species'"):
        model.write_crops_from(frame, tmp_path / "y", label_column="species")
    with pytest.raises(AnnotationError, match="no boxes with a label"):
        model.write_crops_from(negative, tmp_path / "y")
    with pytest.raises(AnnotationError, match="per_class is 0"):
        model.write_crops_from(frame, tmp_path / "y", per_class=0)
    unlabelled = frame.assign(label=["common", None] + ["rare"] * 59)
    unlabelled.attrs["root_dir"] = str(tmp_path)
    with pytest.raises(AnnotationError, match=r"of b\.tif has no label"):
        model.write_crops_from(unlabelled, tmp_path / "y")


def test_the_crops_of_a_geosweep_output(tmp_path):
    from geosweep.pipeline import Job, run

    path = write_raster(tmp_path / "a.tif", outlined())
    job = Job.from_dict(
        {
            "name": "t",
            "source": {"rasters": [str(path)]},
            "detector": {"model": "tests.detectors:PaintDetector"},
            "output": {"path": str(tmp_path / "out")},
        }
    )
    run(job, engine="local")
    model = CropModel(2, model=pool())
    files = model.write_crops_from(tmp_path / "out", tmp_path / "crops")
    assert len(files) == len(OUTLINES) and {f.parent.name for f in files} == {"red"}
    sizes = sorted(Image.open(file).size for file in files)
    assert sizes == sorted((x1 - x0, y1 - y0) for x0, y0, x1, y1 in OUTLINES)
    large = labelled_boxes(tmp_path / "out", min_score=0.51)
    assert 0 < len(large) < len(OUTLINES)
    for item in (tmp_path / "out" / "items").iterdir():
        item.write_text(json.dumps({"assets": {}}))
    with pytest.raises(AnnotationError, match="no detections"):
        model.write_crops_from(tmp_path / "out", tmp_path / "none")


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_each_class_is_split_alike(labels, share):
    rest, held = split_by_class(labels, share)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    for name in set(labels):
        count, out = labels.count(name), sum(labels[i] == name for i in held)
        assert out == min(max(1, round(share * count)), count - 1)
    kept = [labels[i] for i in sample_per_class(labels, 3)]
    assert all(kept.count(name) == min(3, labels.count(name)) for name in set(labels))


def test_predict_fills_the_frame_that_it_is_given(tmp_path):
    path = write_raster(tmp_path / "a.tif", outlined())
    model = CropModel(label_dict={"a": 0, "b": 1}, model=pool(), resize=(8, 8), expand=2)
    empty = annotation_frame([], np.zeros((0, 4)), [], root_dir=tmp_path)
    assert list(model.predict(empty).columns[-2:]) == ["cropmodel_label", "cropmodel_score"]
    frame = annotation_frame(["a.tif"] * 7, OUTLINES, ["x"] * 7, root_dir=tmp_path)
    found = model.predict(frame, name="state")
    assert found.state_score.dtype == np.float32 and found.state_score.between(0.5, 1).all()
    one = model.predict(frame[:1], name="state")  # one row is as good as seven
    assert one.state_score.tolist() == found.state_score[:1].tolist()
    with rasterio.open(path) as dataset:
        array = dataset.read().transpose(1, 2, 0)
    in_memory = model.predict(frame, array, name="state")
    assert in_memory.state_score.tolist() == found.state_score.tolist()
    assert "state_label" not in frame
    negative = annotation_frame(["gone.tif"], [[0, 0, 0, 0]], [None], root_dir=tmp_path)
    row = model.predict(negative).iloc[0]
    assert row.cropmodel_label is None and np.isnan(row.cropmodel_score)
    with pytest.raises(Exception, match=r"shape \(500, 700, 2\)"):
        model.predict(frame, array[..., :2])
