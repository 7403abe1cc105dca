"""The same pairs, precision and recall as DeepForest's evaluation, on its own sample data."""

import numpy as np
import pandas as pd
import pytest

from geosweep.models import evaluate, read_annotations
from geosweep.models._annotations import deepforest_data
from geosweep.pipeline import predict_tile

evaluate_boxes = pytest.importorskip("deepforest.evaluate").evaluate_boxes
read_file = pytest.importorskip("deepforest.utilities").read_file

CORNERS = ["xmin", "ymin", "xmax", "ymax"]
DATA = deepforest_data()


def with_errors(truth, seed):
    """Labels with some of them gone, the others moved, a few relabelled, and some made up."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(truth.drop(columns="geometry")).sample(frac=0.85, random_state=seed)
    extra = rows.sample(frac=0.15, random_state=seed + 1)
    extra[["xmin", "xmax"]] += 37
    rows = pd.concat([rows, extra], ignore_index=True)
    side = np.minimum(rows["xmax"] - rows["xmin"], rows["ymax"] - rows["ymin"]).to_numpy()
    shift = rng.normal(0, 0.15, (len(rows), 4)) * side[:, None]
    rows[CORNERS] += np.clip(shift, -0.4 * side[:, None], 0.4 * side[:, None])
    labels = sorted(set(rows["label"]))
    wrong = rng.uniform(size=len(rows)) < 0.2
    rows.loc[wrong, "label"] = rng.choice(labels, wrong.sum())
    rows["score"] = rng.uniform(0.1, 1, len(rows))
    return rows


def check_same(ours, theirs):
    rows = theirs["results"]
    matched = rows[rows["match"]]
    both = ours.matches.dropna(subset=["truth_row", "prediction_row"])
    # DeepForest numbers rows within each image.
    pairs = {
        (image, tuple(a.bounds), round(iou, 9))
        for image, a, iou in zip(both["image_path"], both.geometry, both["iou"], strict=True)
    }
    expected = {
        (image, tuple(a.bounds), round(iou, 9))
        for image, a, iou in zip(matched["image_path"], matched.geometry, matched["IoU"], strict=True)
    }  # fmt: skip
    assert pairs == expected
    assert ours.image_recall == pytest.approx(theirs["box_recall"])
    assert ours.image_precision == pytest.approx(theirs["box_precision"])
    for label, recall, precision, size in theirs["class_recall"].itertuples(index=False):
        mine = ours.per_class.loc[label]
        assert np.nan_to_num(mine["located_recall"]) == pytest.approx(recall)
        assert np.nan_to_num(mine["located_precision"]) == pytest.approx(precision)
        assert mine["truths"] - mine["missed"] == size


@pytest.mark.parametrize("iou", [0.3, 0.4, 0.6])
@pytest.mark.parametrize(
    "name", ["OSBS_029.csv", "testfile_multi.csv", "example.csv", "testfile_deepforest.csv"]
)
def test_labels_with_errors(name, iou):
    truth = read_file(str(DATA / name), root_dir=str(DATA))
    found = with_errors(truth, seed=len(name))
    theirs = evaluate_boxes(found, truth, iou_threshold=iou)
    assert theirs["results"]["match"].sum() > 10
    check_same(evaluate(found, read_annotations(DATA / name), iou, coco=False), theirs)


def test_several_images_one_without_predictions_and_one_without_objects():
    names = ["OSBS_029.csv", "testfile_multi.csv"]
    labels = pd.concat([pd.read_csv(DATA / name) for name in names])
    truth = read_file(labels, root_dir=str(DATA))
    found = with_errors(truth, seed=8)
    silent = labels[labels["image_path"] == "SOAP_061.png"].assign(image_path="silent.png")
    bare = pd.DataFrame([{"image_path": "bare.png", **dict.fromkeys(CORNERS, 0), "label": "Tree"}])
    labels = pd.concat([labels, silent, bare], ignore_index=True)
    more = pd.concat([found, found[:3].assign(image_path="bare.png")], ignore_index=True)
    theirs = evaluate_boxes(more, read_file(labels, root_dir=str(DATA)))
    ours = evaluate(more, labels, coco=False)
    assert (ours.images, ours.empty_images, ours.empty_frame_accuracy) == (4, 1, 0)
    check_same(ours, theirs)


def test_detections_of_the_packaged_model():
    found = predict_tile(DATA / "OSBS_029.tif").drop(columns="geometry")
    found["image_path"] = "OSBS_029.tif"
    truth = read_file(str(DATA / "OSBS_029.csv"), root_dir=str(DATA))
    check_same(
        evaluate(found, DATA / "OSBS_029.csv", coco=False),
        evaluate_boxes(pd.DataFrame(found), truth),
    )


def boxes(image, places, label="Tree", score=None):
    """Squares of 10 px side by side."""
    rows = pd.DataFrame({"image_path": image, "xmin": [20.0 * place for place in places]})
    rows["ymin"], rows["xmax"], rows["ymax"] = 0.0, rows["xmin"] + 10, 10.0
    rows["label"] = label
    return rows if score is None else rows.assign(score=score)


class TestFaultsOfTheirs:
    """What DeepForest's evaluation does not see, and ours does."""

    def test_detections_on_images_without_objects_count(self):
        bare = pd.DataFrame([{"image_path": "bare", **dict.fromkeys(CORNERS, 0), "label": "Tree"}])
        truth = pd.concat([boxes("a", range(4)), bare], ignore_index=True)
        found = pd.concat([boxes("a", range(4), score=0.9), boxes("bare", range(4), score=0.9)])
        theirs = evaluate_boxes(found.reset_index(drop=True), read_file(truth, root_dir="."))
        assert theirs["box_precision"] == 1
        ours = evaluate(found, truth, coco=False)
        assert (ours.precision, ours.false_positives) == (0.5, 4)
        assert (ours.image_precision, ours.empty_frame_accuracy) == (1, 0)

    def test_a_missed_object_lowers_the_recall_of_its_class(self):
        truth = pd.concat([boxes("a", range(4), "Dead"), boxes("a", range(4, 8), "Alive")])
        truth = truth.reset_index(drop=True)
        found = truth[truth.index != 2].assign(score=0.9).reset_index(drop=True)
        theirs = evaluate_boxes(found, read_file(truth, root_dir="."))["class_recall"]
        assert theirs.set_index("label").loc["Dead", "recall"] == 1
        dead = evaluate(found, truth, coco=False).per_class.loc["Dead"]
        assert (dead["recall"], dead["located_recall"], dead["missed"]) == (3 / 4, 1, 1)

    def test_more_than_a_hundred_objects_on_an_image_count(self):
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        truth = boxes("a", range(300))
        # DeepForest's validation makes its metric with these arguments.
        metric = MeanAveragePrecision(backend="faster_coco_eval")
        corners, labels = torch.tensor(truth[CORNERS].to_numpy()).float(), torch.zeros(300).long()
        told = {"boxes": corners, "scores": torch.full((300,), 0.9), "labels": labels}
        metric.update([told], [{"boxes": corners, "labels": labels}])
        assert metric.compute()["map"] < 0.4
        assert evaluate(truth.assign(score=0.9), truth).coco["map"] == pytest.approx(1)
