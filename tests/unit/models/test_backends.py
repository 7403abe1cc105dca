"""Engines other than torch: the same boxes, whatever the batch and the threads."""

import json
import sys

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, box_iou

from geosweep.catalog import ModelError
from geosweep.models import Detections, load_detector
from geosweep.models.backends import export_detector
from geosweep.models.backends.dense import dense_part, with_engine
from geosweep.models.backends.engines import Engine

# Largest differences that were seen are a tenth of these (docs/performance.md).
PIXELS, SCORE = 0.01, 1e-4


@pytest.fixture(scope="module")
def engines():
    """geosweep/tree on both CPU engines."""
    return {
        name: load_detector("geosweep/tree", device="cpu", backend=name, threads=2)
        for name in ("openvino", "onnx")
    }


@pytest.fixture(scope="module")
def reference(tree, window):
    return tree.detect(window[None])[0]


def assert_same(found, wanted):
    """One to one: as many, and each with a partner of nearly its place and score."""
    assert len(found) == len(wanted) > 10
    iou = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(wanted.boxes))
    partner = iou.argmax(1).numpy()
    assert len(set(partner)) == len(wanted)
    assert np.abs(found.boxes - wanted.boxes[partner]).max() < PIXELS
    assert np.abs(found.scores - wanted.scores[partner]).max() < SCORE
    assert (found.labels == wanted.labels[partner]).all()


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_the_boxes_are_torchs(engines, backend, window, reference):
    assert_same(engines[backend].detect(window[None])[0], reference)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_batch_and_threads_change_nothing(engines, backend, window):
    images = np.stack([window, window[:, ::-1].copy(), np.zeros_like(window)])
    together = engines[backend].detect(images)
    alone = load_detector("geosweep/tree", device="cpu", backend=backend, threads=1)
    for image, found in zip(images, together, strict=True):
        own = alone.detect(image[None])[0]
        assert np.array_equal(own.boxes, found.boxes)
        assert np.array_equal(own.scores, found.scores)


def test_other_sizes_get_programs_of_their_own(engines, tree, window):
    for part in (window[:, :250, :370], window):
        image = np.ascontiguousarray(part)[None]
        assert_same(engines["openvino"].detect(image)[0], tree.detect(image)[0])


def test_bf16_finds_the_same_trees(window, reference):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ModelError, match="no bf16"):
            load_detector("geosweep/tree", device="cpu", backend="openvino", precision="bf16")
        pytest.skip("this CPU has no bf16")
    fast = load_detector("geosweep/tree", device="cpu", backend="openvino", precision="bf16")
    found = fast.detect(window[None])[0]
    iou = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(reference.boxes)).numpy()
    # Those near the threshold may fall to either side.
    assert (iou.max(0)[reference.scores > 0.35] > 0.7).all()
    assert (iou.max(1)[found.scores > 0.35] > 0.7).all()


@pytest.mark.parametrize("kind", ["singleshot", "retinanet"])
def test_networks_are_taken_apart_and_put_together(kind, window):
    """With torch itself as the engine, the boxes are the same to the bit."""
    from geosweep.models._architectures import ARCHITECTURES

    settings = {"retinanet": {"min_size": 128, "max_size": 256}}.get(kind, {})
    architecture = ARCHITECTURES[kind]
    torch.manual_seed(0)
    network = architecture.build(
        architecture.config(num_classes=2, **settings), score_threshold=0.0, nms_iou=0.5
    ).eval()
    images = list(torch.from_numpy(window[:, :120, :160]).float().div(255).split(80, dim=2))
    with torch.inference_mode():
        wanted = network(images)
        found = with_engine(network, dense_part(network, kind, "torch"))(images)
    for theirs, ours in zip(wanted, found, strict=True):
        assert len(theirs["boxes"]) > 10
        for name in ("boxes", "labels", "scores"):
            assert torch.equal(theirs[name], ours[name])


def test_thresholds_are_honoured(engines, window, reference):
    strict = load_detector(engines["onnx"], score_threshold=0.5)
    found = strict.detect(window[None])[0]
    assert 0 < len(found) == (reference.scores >= 0.5).sum()


def test_torchs_compiler():
    """A small network: compiling geosweep/tree takes a minute."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU6(), torch.nn.MaxPool2d(2)
    ).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        found = Engine(network, "compile")(image)
        torch.testing.assert_close(found, network(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_exported_files_stand_alone(tmp_path, suffix, window, reference):
    path = export_detector("geosweep/tree", tmp_path / f"tree{suffix}")
    facts = json.loads(path.with_suffix(".json").read_text())
    images = window[None].astype(np.float32) / 255
    if suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        boxes, scores = session.run(["boxes", "scores"], {"images": images})
    else:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32"}  # its own choice is bf16 where there is any
        found = openvino.Core().compile_model(path, "CPU", settings)({0: images})
        boxes, scores = found["boxes"], found["scores"]
    assert boxes.shape[1:] == (4,)
    assert scores.shape == (len(boxes), len(facts["labels"]))
    rows, labels = np.nonzero(scores > facts["score_threshold"])
    boxes, scores, labels = map(torch.from_numpy, (boxes[rows], scores[rows, labels], labels))
    keep = batched_nms(boxes, scores, labels, facts["nms_iou"])
    assert_same(
        Detections(boxes[keep].numpy(), labels[keep].numpy(), scores[keep].numpy()), reference
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "tensorflow"}, "choose one of torch, compile, onnx, openvino"),
        ({"backend": "onnx", "precision": "bf16"}, "computes in fp32"),
        ({"backend": "openvino", "precision": "fp16"}, "computes in fp32 or bf16"),
    ],
)
def test_what_can_not_be_is_refused(settings, says):
    with pytest.raises(ModelError, match=says):
        load_detector("geosweep/tree", device="cpu", **settings)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'geosweep\[export\]'"):
        load_detector("geosweep/tree", device="cpu", backend="openvino")


def test_two_stages_are_refused():
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    from geosweep.models.backends import accelerate

    network = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    with pytest.raises(ModelError, match="use the backend torch"):
        accelerate(network, "onnx", "two-stage")


@pytest.mark.parametrize(
    ("path", "says"), [("tree.pt", "ends in .onnx or .xml"), ("none/tree.onnx", "no folder")]
)
def test_where_an_export_can_not_go(tmp_path, path, says):
    with pytest.raises(ModelError, match=says):
        export_detector("geosweep/tree", tmp_path / path)
