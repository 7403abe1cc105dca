"""`evaluate`: matching, figures and tables against hand-made cases, brute force and torchmetrics."""

from __future__ import annotations

import json
import resource

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine
from scipy.optimize import linear_sum_assignment
from torchmetrics.detection import MeanAveragePrecision

from geosweep.catalog.errors import AnnotationError, JobError
from geosweep.models import _eval_matching as matching
from geosweep.models import evaluate
from geosweep.models._eval_files import match_names
from geosweep.models._eval_tables import coco_groups

CORNERS = ["xmin", "ymin", "xmax", "ymax"]


def frame(rows, **columns):
    """Rows of (image, box, label), as a frame of annotations or predictions."""
    boxes = np.array([box for _, box, _ in rows], float).reshape(-1, 4)
    return pd.DataFrame(
        {
            "image_path": [image for image, _, _ in rows],
            **{name: boxes[:, i] for i, name in enumerate(CORNERS)},
            "label": [label for _, _, label in rows],
            **columns,
        }
    )


def square(x, y, side=10):
    return (x, y, x + side, y + side)


TRUTH = frame(
    [
        ("a.tif", square(0, 0), "Oak"),
        ("a.tif", square(20, 0), "Oak"),
        ("a.tif", square(40, 0), "Pine"),
        ("a.tif", square(60, 0), "Pine"),
        ("b.tif", square(0, 0), "Oak"),
        ("empty.tif", (0, 0, 0, 0), None),
        ("bare.tif", (0, 0, 0, 0), None),
    ]
)
FOUND = frame(
    [
        ("a.tif", square(1, 0), "Oak"),  # right
        ("a.tif", square(20, 1), "Pine"),  # an oak called a pine
        ("a.tif", square(40, 0), "Pine"),  # right
        ("a.tif", square(80, 0), "Pine"),  # nothing there
        ("bare.tif", square(5, 5), "Oak"),  # nothing there
        ("elsewhere.tif", square(5, 5), "Oak"),  # nobody looked
    ],
    score=[0.9, 0.8, 0.7, 0.6, 0.5, 0.9],
    cropmodel_label=["Dead", "Alive", "Alive", "Alive", "Alive", "Dead"],
    cropmodel_score=[0.9] * 6,
)


@pytest.fixture(scope="module")
def result():
    return evaluate(FOUND, TRUTH)


class TestWorkedExample:
    def test_counts(self, result):
        assert (result.images, result.empty_images) == (4, 2)
        assert (result.truths, result.predictions, result.matched) == (5, 5, 3)
        assert (result.correct, result.misclassified) == (2, 1)
        assert (result.missed, result.false_positives) == (2, 2)
        assert result.ignored == {"elsewhere.tif": 1}

    def test_shares(self, result):
        assert result.precision == 3 / 5
        assert result.recall == 3 / 5
        assert result.f1 == 6 / 10
        assert result.label_accuracy == 2 / 3
        # a.tif: 3 of 4 predictions, 3 of 4 objects; b.tif: nothing predicted, 0 of 1.
        assert result.image_precision == 3 / 4
        assert result.image_recall == 3 / 8
        assert result.empty_frame_accuracy == 1 / 2
        assert result.count_bias == (0 - 1 + 0 + 1) / 4
        assert result.count_error == 2 / 4

    def test_average_precision(self, result):
        # By falling score: hit, hit, hit, miss, miss; recall ends at 3/5.
        assert result.average_precision == pytest.approx(3 / 5)
        # Oaks: one hit of three; pines: miss, hit, miss, with two to find.
        assert result.per_class.loc["Oak", "average_precision"] == pytest.approx(1 / 3)
        assert result.per_class.loc["Pine", "average_precision"] == pytest.approx(1 / 4)

    def test_classes(self, result):
        oak, pine = result.per_class.loc["Oak"], result.per_class.loc["Pine"]
        names = ["truths", "predictions", "correct", "misclassified", "missed", "false_positives"]
        assert oak[names].tolist() == [3, 2, 1, 1, 1, 1]
        assert pine[names].tolist() == [2, 3, 1, 0, 1, 1]
        assert (oak["precision"], oak["recall"]) == (1 / 2, 1 / 3)
        assert (oak["located_precision"], oak["located_recall"]) == (1, 1 / 2)
        assert pine["located_precision"] == 1 / 2

    def test_images(self, result):
        table = result.per_image
        assert table.index.tolist() == ["a.tif", "b.tif", "empty.tif", "bare.tif"]
        assert table["matches"].tolist() == [3, 0, 0, 0]
        assert table["missed"].tolist() == [1, 1, 0, 0]
        assert table["false_positives"].tolist() == [1, 0, 0, 1]
        assert table["count_error"].tolist() == [0, -1, 0, 1]

    def test_every_object_has_an_outcome(self, result):
        rows = result.matches
        assert rows["outcome"].tolist() == [
            *("correct", "misclassified", "correct", "missed", "missed"),
            *("false", "false"),
        ]
        assert rows["truth_row"].tolist() == [0, 1, 2, 3, 4, None, None]
        assert rows["prediction_row"].tolist() == [0, 1, 2, None, None, 3, 4]
        assert rows["iou"][0] == pytest.approx(9 / 11)
        assert rows["iou"][3:].isna().all()
        assert rows["score"].dropna().tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
        assert rows.geometry[1].bounds == square(20, 0)
        assert rows["predicted_geometry"][1].bounds == square(20, 1)
        assert rows.geometry[5].bounds == square(80, 0)

    def test_confusion(self, result):
        label = result.confusion["label"]
        assert label.index.tolist() == ["Oak", "Pine", "(none)"]
        assert label.columns.tolist() == ["Oak", "Pine", "(none)"]
        assert label.to_numpy().tolist() == [[1, 1, 1], [0, 1, 1], [1, 1, 0]]
        crops = result.confusion["cropmodel_label"]
        assert crops.columns.tolist() == ["Alive", "Dead", "(none)"]
        assert crops.to_numpy().tolist() == [[1, 1, 1], [1, 0, 1], [2, 0, 0]]

    def test_as_json(self, result):
        there_and_back = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert there_and_back["matched"] == 3
        assert there_and_back["per_image"]["b.tif"]["precision"] is None
        assert there_and_back["confusion"]["label"]["Oak"]["Pine"] == 1

    def test_curves(self, result):
        assert list(result.curves) == ["(all)", "Oak", "Pine"]
        curve = result.curves["(all)"]
        assert curve["recall"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.6, 0.6])
        assert curve["precision"].tolist() == pytest.approx([1, 1, 1, 3 / 4, 3 / 5])


def test_a_score_threshold_leaves_average_precision_alone():
    result = evaluate(FOUND, TRUTH, score_threshold=0.75)
    assert (result.predictions, result.matched, result.false_positives) == (2, 2, 0)
    assert result.average_precision == evaluate(FOUND, TRUTH).average_precision
    assert result.empty_frame_accuracy == 1


def test_places_alone():
    result = evaluate(FOUND, TRUTH, class_agnostic=True)
    assert (result.correct, result.misclassified) == (3, 0)
    assert result.per_class.empty
    assert list(result.confusion) == ["cropmodel_label"]


def test_another_label_column():
    truth = TRUTH.replace({"label": {"Oak": "Dead", "Pine": "Alive"}})
    result = evaluate(FOUND, truth, label_column="cropmodel_label")
    assert (result.correct, result.misclassified) == (2, 1)
    assert list(result.confusion) == ["label"]


def test_nothing_predicted():
    result = evaluate(FOUND[:0], TRUTH)
    assert (result.recall, result.missed, result.empty_frame_accuracy) == (0, 5, 1)
    assert np.isnan(result.precision)
    assert result.coco["map"] == 0
    assert result.matches["outcome"].tolist() == ["missed"] * 5


def test_nothing_labelled():
    result = evaluate(FOUND, TRUTH[5:])
    assert (result.truths, result.predictions, result.precision) == (0, 1, 0)
    assert np.isnan([result.recall, result.average_precision, result.coco["map"]]).all()
    assert result.empty_frame_accuracy == 1 / 2


def random_boxes(rng, count, size=100):
    low = rng.uniform(0, size, (count, 2))
    return np.concatenate([low, low + rng.uniform(5, 30, (count, 2))], axis=1)


def nudged(rng, boxes):
    return boxes + np.clip(rng.normal(0, 2, boxes.shape), -2.4, 2.4)


seeds = st.integers(0, 10_000)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(0, 25), st.integers(0, 25), st.sampled_from([1, 3, 5_000]))
def test_overlap_matching_shares_the_largest_area(seed, truths, found, batch):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, truths), random_boxes(rng, found)
    inter = shapely.area(shapely.intersection(shapely.box(*a.T)[:, None], shapely.box(*b.T)[None]))
    iou = matching.box_iou(a, b)
    rows, columns = linear_sum_assignment(inter, maximize=True)
    expected = np.full(found, -1)
    good = iou[rows, columns] > 0.2
    expected[columns[good]] = rows[good]
    pairs = matching.overlapping_boxes(a, b)
    original, matching._BATCH = matching._BATCH, batch
    try:
        ours = matching.match_by_overlap(pairs, truths, found, 0.2)
    finally:
        matching._BATCH = original
    assert ours.tolist() == expected.tolist()


def test_overlap_must_exceed_the_threshold_and_score_reach_it():
    found = frame([("a", square(0, 0), "Oak")], score=[0.9])
    truth = frame([("a", (0, 0, 5, 10), "Oak")])  # IoU 0.5
    assert evaluate(found, truth, 0.5).matched == 0
    assert evaluate(found, truth, 0.5, matching="score").matched == 1
    assert evaluate(found, truth, 0.49).matched == 1


@pytest.mark.parametrize("seed", range(3))
def test_coco_figures_are_those_of_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    truth, found = [], []
    for image in ("a", "b", "c"):
        boxes = random_boxes(rng, 20)
        guesses = np.concatenate([nudged(rng, boxes[:15]), random_boxes(rng, 5)])
        scores = rng.uniform(0, 1, 20)
        classes, guessed = rng.integers(0, 2, (2, 20))
        truth += [(image, box, "AB"[c]) for box, c in zip(boxes, classes, strict=True)]
        found += [
            (image, box, "AB"[c], s) for box, c, s in zip(guesses, guessed, scores, strict=True)
        ]
        told = {
            "boxes": torch.tensor(guesses).float(),
            "scores": torch.tensor(scores).float(),
            "labels": torch.tensor(guessed),
        }
        true = {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(classes)}
        metric.update([told], [true])
    expected = {name: float(value) for name, value in metric.compute().items() if value.ndim == 0}
    predictions = frame([row[:3] for row in found], score=[row[3] for row in found])
    coco = evaluate(predictions, frame(truth)).coco
    assert coco["map"] == pytest.approx(expected["map"], abs=1e-6)
    assert coco["map_50"] == pytest.approx(expected["map_50"], abs=1e-6)
    assert coco["map_75"] == pytest.approx(expected["map_75"], abs=1e-6)
    assert coco["mar"] == pytest.approx(expected["mar_100"], abs=1e-6)


def lattice(count, side=10, pitch=20):
    across = int(np.ceil(np.sqrt(count)))
    rows, columns = np.divmod(np.arange(count), across)
    return [square(x * pitch, y * pitch, side) for x, y in zip(columns, rows, strict=True)]


def test_coco_counts_more_than_a_hundred_objects():
    boxes = [("a", box, "Tree") for box in lattice(250)]
    assert evaluate(frame(boxes, score=[0.5] * 250), frame(boxes)).coco["map"] == pytest.approx(1)


def test_clusters_give_what_whole_images_give(monkeypatch):
    rng = np.random.default_rng(5)
    boxes = random_boxes(rng, 300, size=600)
    truth = frame([("ab"[i % 2], box, "Tree") for i, box in enumerate(boxes)])
    moved = nudged(rng, boxes)
    found = frame(
        [("ab"[i % 2], box, "Tree") for i, box in enumerate(moved)], score=rng.uniform(size=300)
    )
    whole = evaluate(found, truth).coco
    groups = {}

    def small(compared, pairs):
        groups["both"] = coco_groups(compared, pairs, most=40)
        return groups["both"]

    monkeypatch.setattr("geosweep.models._eval_tables.coco_groups", small)
    assert evaluate(found, truth).coco == pytest.approx(whole, abs=1e-6)
    assert len(np.unique(groups["both"][0])) > 4


def test_a_large_image_needs_no_matrix_of_all_pairs():
    boxes = [("a", box, "Tree") for box in lattice(12_000)]
    truth, found = frame(boxes), frame(boxes, score=np.linspace(0, 1, 12_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = evaluate(found, truth)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert result.matched == 12_000
    assert result.coco["map"] == pytest.approx(1)
    # 12,000 × 12,000 float64 are 1.15 GB; ru_maxrss is in KiB.
    assert after - before < 400 * 2**10


class TestOnTheMap:
    """Boxes in pixels of a rotated raster, and the same boxes on the map."""

    TRANSFORM = (
        Affine.translation(500_000, 4_900_000) @ Affine.rotation(20) @ Affine.scale(0.5, -0.4)
    )

    @pytest.fixture
    def both(self):
        rng = np.random.default_rng(3)
        boxes = random_boxes(rng, 40, size=300)
        truth = frame([("a", box, "Tree") for box in boxes])
        moved = np.concatenate([nudged(rng, boxes[:30]), random_boxes(rng, 8)])
        found = frame([("a", box, "Tree") for box in moved], score=rng.uniform(size=38))
        return found, truth

    def placed(self, rows, crs):
        corners = shapely.box(*rows[CORNERS].to_numpy().T)
        a, b, c, d, e, f = self.TRANSFORM[:6]
        series = gpd.GeoSeries(corners).affine_transform([a, b, d, e, c, f])
        columns = [name for name in rows.columns if name not in CORNERS]
        return gpd.GeoDataFrame(rows[columns], geometry=series, crs="EPSG:32633").to_crs(crs)

    @pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
    def test_as_in_pixels(self, both, crs):
        found, truth = both
        flat = evaluate(found, truth)
        there = evaluate(self.placed(found, crs), self.placed(truth, "EPSG:32633"))
        assert 20 < flat.matched < 38
        assert there.matches["prediction_row"].tolist() == flat.matches["prediction_row"].tolist()
        np.testing.assert_allclose(there.matches["iou"], flat.matches["iou"], atol=1e-6)
        assert there.average_precision == pytest.approx(flat.average_precision)
        assert there.matches.crs == "EPSG:32633"
        assert there.per_image.index.tolist() == ["(map)"]

    def test_from_files(self, both, tmp_path):
        found, truth = both
        self.placed(found, "EPSG:4326").to_parquet(tmp_path / "found.parquet")
        self.placed(truth, "EPSG:32633").to_file(tmp_path / "truth.gpkg")
        result = evaluate(tmp_path / "found.parquet", tmp_path / "truth.gpkg")
        assert result.matched == evaluate(found, truth).matched

    def test_places_alone_need_no_labels(self, both):
        found, truth = (self.placed(rows, "EPSG:32633").drop(columns="label") for rows in both)
        result = evaluate(found, truth, class_agnostic=True)
        assert result.matched == evaluate(*both).matched
        with pytest.raises(AnnotationError, match="no column 'label'"):
            evaluate(found, truth)

    def test_pixels_against_map(self, both):
        found, truth = both
        with pytest.raises(AnnotationError, match=r"map coordinates \(EPSG:32633\).*in pixels"):
            evaluate(found, self.placed(truth, "EPSG:32633"))

    def test_points(self, both):
        found, truth = both
        stems = self.placed(truth, "EPSG:32633")
        stems = stems.set_geometry(stems.geometry.centroid)
        with pytest.raises(AnnotationError, match=r"points or lines.*point_buffer"):
            evaluate(self.placed(found, "EPSG:4326"), stems)


@pytest.mark.parametrize(
    ("names", "images", "expected"),
    [
        (["/data/a.tif"], ["a.tif"], {"/data/a.tif": "a.tif"}),
        (["a.tif"], ["/data/a.tif"], {"a.tif": "/data/a.tif"}),
        (["C:\\x\\a.tif"], ["x/a.tif"], {"C:\\x\\a.tif": "x/a.tif"}),
        (["https://h/p/a.tif"], ["p/a.tif"], {"https://h/p/a.tif": "p/a.tif"}),
        (["/p/a.tif", "/q/a.tif"], ["p/a.tif", "q/a.tif"], {"/p/a.tif": "p/a.tif", "/q/a.tif": "q/a.tif"}),
        (["/d/p/a.tif", "/d/q/a.tif"], ["p/a.tif"], {"/d/p/a.tif": "p/a.tif", "/d/q/a.tif": None}),
        (["b.tif"], ["a.tif"], {"b.tif": None}),
    ],
)  # fmt: skip
def test_the_same_image_under_other_names(names, images, expected):
    assert match_names(names, images) == expected


@pytest.mark.parametrize(
    ("names", "images", "message"),
    [
        (["a.tif"], ["p/a.tif", "q/a.tif"], "'a.tif' could be the labelled 'p/a.tif' or 'q/a.tif'"),
        (
            ["p/a.tif", "q/a.tif"],
            ["a.tif"],
            "'a.tif' could be the predicted 'p/a.tif' or 'q/a.tif'",
        ),
    ],
)
def test_two_images_of_one_name_are_not_mixed_up(names, images, message):
    with pytest.raises(AnnotationError, match=message):
        match_names(names, images)


def changed(column, value):
    rows = FOUND.copy()
    rows[column] = value
    return rows


WRONG = {
    "no score": (FOUND.drop(columns="score"), TRUTH, "no column 'score'; average precision needs"),
    "score is text": (changed("score", "high"), TRUTH, "row 0 has the score 'high'"),
    "no such column": (FOUND.drop(columns="label"), TRUTH, "no column 'label'"),
    "no boxes": (FOUND.drop(columns="ymax"), TRUTH, "predictions have no column 'ymax'"),
    "turned box": (changed("xmax", -1.0), TRUTH, r"row 0 has the box .*4 more rows"),
    "other images": (
        changed("image_path", "x.tif"),
        TRUTH,
        "predictions name 'x.tif', labels name 'a.tif'",
    ),
    "other labels": (
        changed("label", "Tree"),
        TRUTH,
        "predictions say 'Tree', labels say 'Oak', 'Pine'; compare places alone",
    ),
    "labels of the crop model": (
        changed("label", "Tree"),
        TRUTH.replace({"label": {"Oak": "Dead"}}),
        "compare the column 'cropmodel_label'",
    ),
    "no labels at all": (FOUND, TRUTH[:0], "name no image.*all zeros"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_sentence(case):
    found, truth, message = WRONG[case]
    with pytest.raises(AnnotationError, match=message) as caught:
        evaluate(found, truth)
    assert "\n" not in str(caught.value)


def test_arguments_out_of_range():
    with pytest.raises(JobError, match="iou is"):
        evaluate(FOUND, TRUTH, 1.5)
    with pytest.raises(JobError, match="matching is 'best'"):
        evaluate(FOUND, TRUTH, matching="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files(tmp_path, suffix):
    TRUTH.to_csv(tmp_path / "truth.csv", index=False)
    path = tmp_path / f"found.{suffix}"
    if suffix == "csv":
        FOUND.to_csv(path, index=False)
    else:
        boxes = shapely.box(*FOUND[CORNERS].to_numpy().T)
        gpd.GeoDataFrame(FOUND, geometry=boxes).to_parquet(path)
    result = evaluate(path, tmp_path / "truth.csv")
    assert (result.matched, result.misclassified) == (3, 1)
    assert result.root_dir == str(tmp_path)


def test_files_that_are_not_there_or_no_predictions(tmp_path):
    with pytest.raises(AnnotationError, match="There is no file"):
        evaluate(tmp_path / "found.csv", TRUTH)
    with pytest.raises(AnnotationError, match="is a folder: read an output with"):
        evaluate(tmp_path, TRUTH)
    (tmp_path / "found.parquet").write_text("not parquet")
    with pytest.raises(AnnotationError, match="can't be read as predictions"):
        evaluate(tmp_path / "found.parquet", TRUTH)


def test_pictures(tmp_path):
    Image.new("RGB", (200, 60), (20, 40, 20)).save(tmp_path / "a.tif")
    result = evaluate(FOUND, TRUTH)
    paths = result.plot(tmp_path / "plots", image_dir=tmp_path)
    names = [path.relative_to(tmp_path / "plots").as_posix() for path in paths]
    assert names == [
        "precision_recall.png",
        "confusion_label.png",
        "confusion_cropmodel_label.png",
        "counts.png",
        "images/01_a.png",
    ]
    pixels = np.asarray(Image.open(paths[-1]).convert("RGB")).reshape(-1, 3).astype(int)
    # Boxes of all four outcomes were drawn: correct, misclassified, missed, false.
    for colour in [(53, 208, 255), (208, 139, 255), (255, 210, 31), (255, 77, 109)]:
        assert (np.abs(pixels - colour).max(axis=1) < 40).sum() > 100
