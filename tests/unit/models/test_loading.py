"""Models by name: what is accepted, what is refused, and with which sentence."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from geosweep.catalog.errors import ModelError
from geosweep.models import CropModel, Detections, load_crop_model, load_detector, model_info
from geosweep.models._weights import read_header


class Fixed:
    """A detector of the user's own."""

    name, version, labels, device = "fixed", "1", ("Thing",), "cpu"

    def detect(self, images):
        return [Detections.empty() for _ in images]


def make_detector():
    return Fixed()


def make_crop_model():
    return CropModel(label_dict={"a": 0, "b": 1}, model="resnet18", resize=(32, 32))


def make_nonsense():
    return 3


HERE = "geosweep_test_loading_factory"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def test_an_object_passes_through():
    detector = Fixed()
    assert load_detector(detector) is detector
    info = model_info(detector)
    assert (info.name, info.version, info.labels) == ("fixed", "1", ("Thing",))


def test_a_factory_is_called():
    assert isinstance(load_detector(f"{HERE}:make_detector"), Fixed)
    assert load_crop_model(f"{HERE}:make_crop_model").labels == ("a", "b")


def test_a_factorys_version_follows_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_own_factory.py"
    module.write_text("raise RuntimeError('model_info must not run this')\n")
    first = model_info("my_own_factory:make").version
    module.write_text("raise RuntimeError('nor this')\n")
    assert model_info("my_own_factory:make").version != first


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("geosweep/trees", "no such packaged model; there are geosweep/tree, geosweep/alive-dead"),
        ("nothing", "no such model; give a packaged name"),
        ("no/such/file.safetensors", "no such weights file"),
        ("no/such/file.ckpt", "no such weights file"),
        ("hf:three/part/name", "expected hf:owner/repo"),
        (f"{HERE}:nothing", "can't be imported"),
        ("no_such_module_anywhere:make", "can't be imported"),
        (f"{HERE}:HERE", "not callable"),
        (f"{HERE}:make_nonsense", "is no Detector, it lacks name, version, labels, device, detect"),
        ("geosweep/alive-dead", "is a crop model, not a detector"),
    ],
)
def test_refusals_name_the_model_and_the_remedy(spec, message):
    with pytest.raises(ModelError, match=message) as error:
        load_detector(spec)
    assert spec in str(error.value)
    assert "\n" not in str(error.value)


def test_a_detector_is_no_crop_model():
    with pytest.raises(ModelError, match="is a detector, not a crop model"):
        load_crop_model("geosweep/tree")
    with pytest.raises(ModelError, match="expected a CropModel"):
        load_crop_model(f"{HERE}:make_nonsense")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    flag = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(flag), "w"))

    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(
        ModelError, match=r"evil\.pt: can't be loaded as plain tensors.*safetensors"
    ):
        load_detector(path)
    raw = tmp_path / "evil.pl"
    raw.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="never runs code"):
        model_info(raw)
    with pytest.raises(ModelError, match="never runs code"):
        CropModel.load_from_checkpoint(raw)
    assert not flag.exists()


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0not json", b"\xff" * 64])
def test_damaged_safetensors(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: not a readable safetensors file"):
        load_detector(tmp_path)


def test_truncated_weights(tmp_path):
    whole = model_info("geosweep/tree").weights.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cut\.safetensors: not a readable"):
        load_detector(path)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        load_detector(tmp_path)


def test_a_copy_elsewhere_has_the_same_version(tmp_path):
    info = model_info("geosweep/tree")
    path = tmp_path / "mine.safetensors"
    path.write_bytes(info.weights.read_bytes())
    copy = model_info(path)
    assert copy.version == info.version
    assert copy.name == str(path)
    assert copy.score_threshold == 0.3


def test_header_is_read_without_tensors():
    header = read_header(model_info("geosweep/tree").weights)
    assert header.metadata["labels"] == ["Tree"]
    assert "head.levels.0.classes.2.bias" in header.keys


def test_the_hub_out_of_reach():
    code = (
        "from geosweep.models import load_detector\n"
        "from geosweep.catalog.errors import ModelError\n"
        "try: load_detector('hf:weecology/deepforest-tree')\n"
        "except ModelError as error: print(error)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "no-such-cache"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("hf:weecology/deepforest-tree: can't be fetched")
    assert "into a folder" in run.stdout and run.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"device": "tpu9"}, "device 'tpu9' is unknown"),
        ({"device": "cuda:99"}, r"device 'cuda:99' was asked for, but torch sees \d+ GPU"),
        ({"precision": "fp64"}, "precision 'fp64' is unknown"),
        ({"device": "cpu", "precision": "fp16"}, "does not run on a CPU"),
        ({"score_threshold": 1.5}, "score_threshold is 1.5"),
        ({"nms_iou": -0.1}, "nms_iou is -0.1"),
    ],
)
def test_settings_that_can_not_be(kwargs, message):
    with pytest.raises(ModelError, match=message):
        load_detector("geosweep/tree", **kwargs)


def test_a_changed_weight_changes_the_version(tmp_path):
    from geosweep.models._checkpoints import read_state
    from geosweep.models._sources import find_source
    from geosweep.models._weights import write_weights

    source = find_source("geosweep/tree")
    state, _ = read_state(source)
    metadata = read_header(source.weights).metadata
    write_weights(tmp_path / "a.safetensors", state, metadata)
    state["head.levels.0.classes.2.bias"] += 0.5
    write_weights(tmp_path / "b.safetensors", state, metadata)
    a, b = (model_info(tmp_path / f"{name}.safetensors").version for name in "ab")
    assert a != b
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 64), np.uint8)
    x, y = (
        load_detector(tmp_path / f"{name}.safetensors", device="cpu", score_threshold=0).detect(
            image
        )
        for name in "ab"
    )
    assert y[0].scores[0] > x[0].scores[0]


def test_a_newer_architecture_is_not_guessed(tmp_path):
    from geosweep.models._weights import write_weights

    metadata = read_header(model_info("geosweep/tree").weights).metadata
    path = tmp_path / "new.safetensors"
    write_weights(path, {"x": torch.zeros(1)}, {**metadata, "architecture": "singleshot-9"})
    with pytest.raises(ModelError, match=r"singleshot-9.*upgrade"):
        load_detector(path)
    write_weights(path, {"x": torch.zeros(1)}, {**metadata, "format": 2})
    with pytest.raises(ModelError, match="format"):
        load_detector(path)
