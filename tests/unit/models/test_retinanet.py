"""DeepForest's published layout: same boxes as DeepForest, and nothing loads in silence."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.ops import box_iou

from geosweep.catalog.errors import ModelError
from geosweep.models import load_detector, model_info
from geosweep.models._retinanet import build_retinanet

LABELS = {"Bird": 1, "Tree": 0}


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """DeepForest's own network with weights made on the spot, and where it saved them."""
    pytest.importorskip("deepforest")
    from tests.peers import make_retinanet

    folder = tmp_path_factory.mktemp("peer")
    return make_retinanet(folder), folder


@pytest.fixture(scope="module")
def state(peer):
    return load_file(peer[1] / "model.safetensors")


def expected(peer, window):
    with torch.inference_mode():
        (found,) = peer[0]([torch.from_numpy(window).float() / 255])
    return {name: value.numpy() for name, value in found.items()}


def check_same(found, wanted):
    """Up to rounding; many scores of a random network are equal, so partners are found by place."""
    assert len(found) == len(wanted["scores"]) > 20
    iou = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(wanted["boxes"]))
    partner = iou.argmax(1).numpy()
    assert len(set(partner)) == len(found)
    assert np.abs(found.boxes - wanted["boxes"][partner]).max() < 0.01
    assert np.abs(found.scores - wanted["scores"][partner]).max() < 1e-5
    assert (found.labels == wanted["labels"][partner]).all()


def test_a_folder_gives_deepforests_boxes(peer, window):
    detector = load_detector(str(peer[1]), device="cpu")
    assert detector.labels == ("Tree", "Bird")  # by index, not by place in the dict
    found = detector.detect(window[None])[0]
    check_same(found, expected(peer, window))
    assert len(set(found.labels)) == 2


def test_published_files_carry_a_prefix(peer, state, window, tmp_path):
    save_file({f"model.{k}": v for k, v in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((peer[1] / "config.json").read_bytes())
    found = load_detector(tmp_path, device="cpu").detect(window[None])[0]
    check_same(found, expected(peer, window))


def test_older_names_and_a_lightning_checkpoint(peer, state, window, tmp_path):
    old = {}
    for key, value in state.items():
        name = key
        for i in range(3):
            name = name.replace(f"inner_blocks.{i}.0.", f"inner_blocks.{i}.")
            name = name.replace(f"layer_blocks.{i}.0.", f"layer_blocks.{i}.")
        for i in range(3, -1, -1):
            name = name.replace(f"_head.conv.{i}.0.", f"_head.conv.{2 * i}.")
        old[f"model.{name}"] = value
    assert len(old) == len(state) and set(old) != {f"model.{k}" for k in state}
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": old, "label_dict": LABELS, "epoch": 3}, path)
    assert model_info(path).labels == ("Tree", "Bird")
    found = load_detector(path, device="cpu").detect(window[None])[0]
    check_same(found, expected(peer, window))


def test_thresholds_come_from_config_then_deepforests_defaults(peer, state, tmp_path):
    save_file(state, tmp_path / "model.safetensors")
    config = {"num_classes": 2, "label_dict": LABELS}
    (tmp_path / "config.json").write_text(json.dumps(config))
    info = model_info(tmp_path)
    assert (info.score_threshold, info.nms_iou) == (0.1, 0.05)
    config |= {"score_thresh": 0.0, "nms_thresh": 0.4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    other = model_info(tmp_path)
    assert (other.score_threshold, other.nms_iou) == (0.0, 0.4)
    assert other.version != info.version
    detector = load_detector(tmp_path, device="cpu", score_threshold=0.7)
    assert (detector.network.score_thresh, detector.network.nms_thresh) == (0.7, 0.4)


def write(tmp_path, state, label_dict):
    save_file(state, tmp_path / "model.safetensors")
    config = {"num_classes": len(label_dict), "label_dict": label_dict}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("how", ["missing", "unexpected", "misnamed", "shape"])
def test_weights_that_do_not_fit_are_refused(state, tmp_path, how):
    changed = dict(state)
    key = "backbone.fpn.layer_blocks.1.0.weight"
    if how != "unexpected":
        tensor = changed.pop(key)
    if how == "unexpected":
        changed["head.extra.weight"] = torch.zeros(1)
    elif how == "misnamed":
        changed["backbone.fpn.layers.1.0.weight"] = tensor
    elif how == "shape":
        changed[key] = tensor[:5].clone()
    pattern = {
        "missing": rf"1 missing \(such as {key}\)",
        "unexpected": r"1 unexpected \(such as head\.extra\.weight\)",
        "misnamed": r"1 missing .* and 1 unexpected",
        "shape": rf"1 tensor.* another shape.*{key}",
    }[how]
    with pytest.raises(ModelError, match=pattern):
        load_detector(write(tmp_path, changed, LABELS), device="cpu")


@pytest.mark.parametrize(
    ("label_dict", "message"),
    [
        ({"Tree": 0}, r"have 2 class\(es\), but label_dict names 1"),
        ({"Tree": 1, "Bird": 2}, "0, 1, 2"),
        ({}, "no label names"),
    ],
)
def test_labels_must_fit(state, tmp_path, label_dict, message):
    with pytest.raises(ModelError, match=message):
        load_detector(write(tmp_path, state, label_dict), device="cpu")


def test_the_network_is_the_size_of_the_published_one():
    network = build_retinanet(1)
    assert len(network.state_dict()) == 301
