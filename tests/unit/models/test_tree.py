"""The packaged detector: it finds trees, and an image's boxes depend on that image only."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from geosweep.catalog.errors import ModelError
from geosweep.models import Detections, Detector, load_detector, model_info
from geosweep.models._singleshot import SingleShotConfig, build_singleshot
from geosweep.models._threads import _pool, map_in_threads
from geosweep.models._tiled import detect_tiled
from geosweep.models.evaluation import box_metrics


def same(a: Detections, b: Detections) -> bool:
    return (
        np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.scores, b.scores)
    )


def test_finds_the_trees_of_the_held_out_tile(tree, held_out):
    found = detect_tiled(tree, held_out.pixels)
    result = box_metrics([found.boxes], [found.scores], [held_out.boxes], iou=0.4)
    assert result.truths == 279
    assert result.precision > 0.65
    assert result.recall > 0.5
    # Boxes moved by a crown's width are no longer right: the floor above is not met by chance.
    moved = box_metrics([found.boxes + 40], [found.scores], [held_out.boxes], iou=0.4)
    assert moved.precision < 0.3


def test_card_figures_are_those_of_the_shipped_file(held_out):
    metrics = model_info("geosweep/tree").metrics["held_out"]
    detector = load_detector("geosweep/tree", device="cpu", score_threshold=0.02)
    found = detect_tiled(detector, held_out.pixels)
    result = box_metrics(
        [found.boxes], [found.scores], [held_out.boxes], iou=0.4, score_threshold=0.3
    )
    # A box at the threshold may fall to either side on another CPU.
    assert result.precision == pytest.approx(metrics["precision"], abs=0.01)
    assert result.recall == pytest.approx(metrics["recall"], abs=0.01)
    assert result.average_precision == pytest.approx(metrics["ap40"], abs=0.01)


def test_satisfies_the_protocol(tree, window):
    assert isinstance(tree, Detector)
    assert tree.labels == ("Tree",)
    assert tree.device == "cpu"
    (found,) = tree.detect(window[None])
    assert len(found) > 0
    assert found.boxes.dtype == np.float32 and found.boxes.shape == (len(found), 4)
    assert found.labels.dtype == np.int64 and set(found.labels) == {0}
    assert found.scores.dtype == np.float32
    assert np.all(np.diff(found.scores) <= 0)
    assert found.scores.min() > 0.3
    assert np.all(found.boxes[:, 2:] > found.boxes[:, :2])
    assert found.boxes.min() >= 0 and found.boxes.max() <= 400


def test_an_image_does_not_depend_on_its_batch(tree, held_out):
    images = np.stack([held_out.pixels[:, y : y + 400, y : y + 400] for y in (0, 250, 500)])
    together = tree.detect(images)
    alone = [tree.detect(image[None])[0] for image in images]
    reversed_batch = tree.detect(images[::-1].copy())[::-1]
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))
    assert all(same(a, b) for a, b in zip(together, reversed_batch, strict=True))
    assert len({len(found) for found in together}) > 1


@pytest.mark.parametrize("process", [1, 2, 3])
def test_the_number_of_threads_does_not_matter(tree, held_out, process):
    images = np.stack([held_out.pixels[:, y : y + 400, y : y + 400] for y in (0, 250, 500)])
    expected = tree.detect(images)
    before = torch.get_num_threads()
    _pool.cache_clear()
    torch.set_num_threads(process)
    try:
        for threads in (1, 2, 3):
            detector = load_detector("geosweep/tree", device="cpu", threads=threads)
            found = detector.detect(images)
            assert all(same(a, b) for a, b in zip(found, expected, strict=True))

            def inside(_):
                torch.ones(100, 100) @ torch.ones(100, 100)
                return torch.get_num_threads()

            assert map_in_threads(inside, range(6), threads) == [1] * 6
        assert torch.get_num_threads() == process
    finally:
        torch.set_num_threads(before)
        _pool.cache_clear()


def test_float_images_give_the_boxes_of_uint8(tree, window):
    expected = tree.detect(window[None])[0]
    scaled = window[None].astype(np.float32) / 255
    assert same(tree.detect(scaled)[0], expected)
    assert same(tree.detect(torch.from_numpy(scaled))[0], expected)
    assert same(tree.detect(torch.from_numpy(window[None]))[0], expected)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_uniform_images_are_empty(tree, value):
    (found,) = tree.detect(np.full((1, 3, 400, 400), value, np.uint8))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.boxes.dtype == np.float32 and found.labels.dtype == np.int64


@pytest.mark.parametrize("size", [(1, 1), (31, 400), (401, 333), (640, 97)])
def test_takes_any_size(tree, held_out, size):
    height, width = size
    image = np.ascontiguousarray(held_out.pixels[None, :, 200 : 200 + height, 200 : 200 + width])
    (found,) = tree.detect(image)
    assert np.all(found.boxes[:, 0::2] <= width) and np.all(found.boxes[:, 1::2] <= height)


def test_images_are_taken_at_their_own_scale():
    # torchvision's `_skip_resize` holds in training mode only.
    network = build_singleshot(SingleShotConfig())
    seen = []
    network.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    image = torch.rand(3, 100, 131)
    with torch.no_grad():
        network.eval()([image])
        network.train()([image], [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}])
    assert seen == [(128, 160), (128, 160)]  # padded to multiples of 32


def test_an_empty_batch_gives_no_results(tree):
    assert tree.detect(np.zeros((0, 3, 400, 400), np.uint8)) == []


@pytest.mark.parametrize(
    "images", [np.zeros((1, 4, 9, 9), np.uint8), np.zeros((3, 9, 9), np.uint8)]
)
def test_refuses_other_shapes(tree, images):
    with pytest.raises(ModelError, match="three bands"):
        tree.detect(images)


def test_refuses_16_bit(tree):
    with pytest.raises(ModelError, match="rescale"):
        tree.detect(np.zeros((1, 3, 9, 9), np.uint16))


def test_thresholds_are_the_files_own_and_can_be_replaced(tree, window):
    info = model_info("geosweep/tree")
    assert (info.score_threshold, info.nms_iou) == (0.3, 0.3)
    own = tree.detect(window[None])[0]
    strict = load_detector("geosweep/tree", device="cpu", score_threshold=0.6).detect(window[None])
    assert 0 < len(strict[0]) < len(own)
    assert same(
        strict[0],
        Detections(*(part[own.scores > 0.6] for part in (own.boxes, own.labels, own.scores))),
    )
    loose = load_detector("geosweep/tree", device="cpu", nms_iou=0.99).detect(window[None])[0]
    assert len(loose) > len(own)


def test_a_loaded_detector_takes_other_thresholds_without_changing(tree, window):
    own = tree.detect(window[None])[0]
    strict = load_detector(tree, score_threshold=0.6)
    expected = load_detector("geosweep/tree", device="cpu", score_threshold=0.6)
    assert same(strict.detect(window[None])[0], expected.detect(window[None])[0])
    assert same(tree.detect(window[None])[0], own)
    assert load_detector(tree) is tree


def test_a_users_detector_is_filtered_by_score_and_keeps_its_nms(window):
    class Three:
        name, version, labels, device = "own", "1", ("x",), "cpu"

        def detect(self, images):
            scores = np.array([0.9, 0.5, 0.1], np.float32)
            boxes = np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], np.float32)
            return [Detections(boxes, np.zeros(3, np.int64), scores) for _ in images]

    (found,) = load_detector(Three(), score_threshold=0.5).detect(window[None])
    assert found.scores.tolist() == [np.float32(0.9), 0.5]
    assert found.boxes[:, 2].tolist() == [1, 2]
    with pytest.raises(ModelError, match="nms_iou is up to it"):
        load_detector(Three(), nms_iou=0.5)


def test_dense_images_are_not_capped_at_300(window):
    detector = load_detector("geosweep/tree", device="cpu", score_threshold=0.0, nms_iou=1.0)
    assert len(detector.detect(window[None])[0]) == 2000
    few = load_detector(
        "geosweep/tree", device="cpu", score_threshold=0.0, nms_iou=1.0, detections_per_image=7
    )
    assert len(few.detect(window[None])[0]) == 7


def test_two_loads_agree_to_the_bit(tree, window):
    again = load_detector("geosweep/tree", device="cpu")
    assert again.version == tree.version == model_info("geosweep/tree").version
    assert same(again.detect(window[None])[0], tree.detect(window[None])[0])


def test_fusing_layers_changes_only_rounding(tree, window):
    from geosweep.models._checkpoints import load_strictly, read_state, source_metadata
    from geosweep.models._sources import find_source

    source = find_source("geosweep/tree")
    info = model_info("geosweep/tree")
    network = build_singleshot(
        SingleShotConfig.from_dict(source_metadata(source)["config"]),
        score_threshold=info.score_threshold,
        nms_iou=info.nms_iou,
    )
    load_strictly(network, read_state(source)[0], "geosweep/tree")
    with torch.inference_mode():
        (plain,) = network.eval()([torch.from_numpy(window).float() / 255])
    found = tree.detect(window[None])[0]
    assert len(found) == len(plain["scores"]) > 10
    np.testing.assert_allclose(found.boxes, plain["boxes"], atol=0.001)
    np.testing.assert_allclose(found.scores, plain["scores"], atol=1e-5)


def test_bf16_on_a_cpu_is_close(tree, window):
    half = load_detector("geosweep/tree", device="cpu", precision="bf16")
    found, expected = half.detect(window[None])[0], tree.detect(window[None])[0]
    result = box_metrics([found.boxes], [found.scores], [expected.boxes], iou=0.7)
    assert result.f1 > 0.85


def test_info_needs_no_torch():
    code = (
        "import sys, json; from geosweep.models import list_models, model_info;"
        "names = [m.name for m in list_models()]; v = model_info('geosweep/tree').version;"
        "print(json.dumps([names, v, [m for m in ('torch', 'lightning') if m in sys.modules]]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, version, heavy = json.loads(out.stdout)
    assert names[:2] == ["geosweep/tree", "geosweep/alive-dead"]
    assert version == model_info("geosweep/tree").version
    assert heavy == []


def test_says_where_it_runs(caplog):
    with caplog.at_level("INFO", logger="geosweep"):
        load_detector("geosweep/tree", device="cpu")
    assert "geosweep/tree runs on cpu" in caplog.text
