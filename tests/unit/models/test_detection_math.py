"""Anchors, matching, losses and NMS against torchvision and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from geosweep.catalog.errors import AnnotationError, TrainingError
from geosweep.models import suggest_anchors
from geosweep.models._annotations import deepforest_data
from geosweep.models._netconfig import RetinaNetConfig, SingleShotConfig
from geosweep.models._retinanet import build_retinanet
from geosweep.models._singleshot import build_singleshot
from geosweep.models.training.anchors import anchor_shapes, kmeans_iou, shape_iou

SMALL = SingleShotConfig(
    num_classes=2,
    channels=8,
    strides=(8, 16),
    anchor_sizes=((12, 20), (33, 51)),
    aspect_ratios=(0.6, 1.0),
    head_convs=0,
    focal_alpha=0.3,
    focal_gamma=1.5,
    detections_per_image=40,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_singleshot(SMALL, score_threshold=0.0, nms_iou=0.4)


@pytest.fixture(scope="module")
def anchors(network):
    """All anchors of a picture of 96 × 96 pixels."""
    images, _ = network.transform([torch.zeros(3, 96, 96)])
    features = list(network.backbone(images.tensors).values())
    return network.anchor_generator(images, features)[0]


def random_boxes(seed: int, count: int, side: int = 96) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, side - 10, (count, 2))
    wh = rng.uniform(4, 50, (count, 2))
    return torch.tensor(np.concatenate([low, low + wh], 1), dtype=torch.float32)


# Anchors


@given(
    st.lists(st.tuples(st.floats(1, 300), st.floats(1, 300)), min_size=1, max_size=8),
    st.lists(st.tuples(st.floats(1, 300), st.floats(1, 300)), min_size=1, max_size=8),
)
def test_shapes_overlap_as_boxes_on_one_centre(a, b):
    def centred(shapes):
        half = torch.tensor(shapes, dtype=torch.float64) / 2
        return torch.cat([-half, half], 1)

    ours = shape_iou(np.array(a), np.array(b))
    np.testing.assert_allclose(ours, box_iou(centred(a), centred(b)).numpy(), rtol=1e-9)


@given(
    st.lists(st.integers(8, 200), min_size=1, max_size=4),
    st.lists(st.floats(0.3, 3.0), min_size=1, max_size=3),
)
def test_anchors_have_torchvisions_shapes(sizes, ratios):
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    made = AnchorGenerator((tuple(sizes),), (tuple(ratios),)).cell_anchors[0]
    theirs = (made[:, 2:] - made[:, :2]).numpy()
    ours = anchor_shapes((tuple(sizes),), tuple(ratios))
    # torchvision goes through the ratios first, and rounds each half of a side.
    ours = ours.reshape(len(sizes), len(ratios), 2).transpose(1, 0, 2).reshape(-1, 2)
    assert np.abs(ours - theirs).max() <= 1.0


def test_anchors_lie_on_the_grid_that_features_are_centred_on(anchors):
    each = 4
    first = anchors[: 12 * 12 * each].view(12, 12, each, 4)
    centres = (first[..., :2] + first[..., 2:]) / 2
    ys, xs = torch.meshgrid(torch.arange(12) * 8.0, torch.arange(12) * 8.0, indexing="ij")
    assert torch.equal(centres[:, :, 0, 0], xs) and torch.equal(centres[:, :, 0, 1], ys)
    assert len(anchors) == (12 * 12 + 6 * 6) * each


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_clusters_are_at_a_fixed_point_and_better_than_none(seed, k):
    rng = np.random.default_rng(seed)
    shapes = rng.lognormal(3.5, 0.5, (60, 2))
    centres = kmeans_iou(shapes, k, seed=1)
    assert centres.shape == (k, 2)
    assert (np.diff(centres.prod(1)) >= 0).all()
    nearest = shape_iou(shapes, centres).argmax(1)
    for i in set(nearest.tolist()):
        np.testing.assert_allclose(np.median(shapes[nearest == i], axis=0), centres[i])
    more = kmeans_iou(shapes, k + 3, seed=1)
    assert shape_iou(shapes, more).max(1).mean() > shape_iou(shapes, centres).max(1).mean() - 0.02


def test_clusters_are_found():
    rng = np.random.default_rng(0)
    true = np.array([[10.0, 10], [20, 40], [90, 60]])
    shapes = np.concatenate([c * rng.uniform(0.95, 1.05, (50, 2)) for c in true])
    np.testing.assert_allclose(kmeans_iou(shapes, 3), true, rtol=0.05)


def test_suggested_anchors_fit_better_than_those_for_trees(tmp_path):
    import pandas as pd

    rng = np.random.default_rng(2)
    wh = np.concatenate([rng.uniform([6, 20], [9, 26], (80, 2)), rng.uniform(7, 11, (80, 2))])
    frame = pd.DataFrame(0.0, index=range(160), columns=["xmin", "ymin", "xmax", "ymax"])
    frame[["xmax", "ymax"]] = wh
    found = suggest_anchors(frame, 6)
    assert found.boxes == 160
    assert found.suggested.mean_iou > found.current.mean_iou + 0.2
    assert found.suggested.recall > 0.95 > found.current.recall
    assert found.clusters.mean_iou > 0.8
    assert [len(level) for level in found.anchor_sizes] == [3, 3]
    assert len(found.aspect_ratios) == 3
    import yaml

    network = yaml.safe_load(found.to_yaml())["model"]["network"]
    again = suggest_anchors(frame, network=network)
    assert again.current.recall == pytest.approx(found.suggested.recall, abs=0.02)


def test_the_trees_own_anchors_fit_trees():
    found = suggest_anchors(deepforest_data() / "OSBS_029.csv")
    # By brute force: the best of all anchors for each box.
    shapes = anchor_shapes(SingleShotConfig().anchor_sizes, (1.0,))
    import pandas as pd

    table = pd.read_csv(deepforest_data() / "OSBS_029.csv")
    best = []
    for w, h in zip(table.xmax - table.xmin, table.ymax - table.ymin, strict=True):
        shared = [min(w, a) * min(h, b) for a, b in shapes]
        best.append(max(s / (w * h + a * b - s) for s, (a, b) in zip(shared, shapes, strict=True)))
    assert found.current.mean_iou == pytest.approx(np.mean(best))
    assert found.current.recall == pytest.approx(np.mean(np.array(best) >= 0.5))


def test_anchors_of_nothing():
    import pandas as pd

    empty = pd.DataFrame({"xmin": [0.0], "ymin": [0.0], "xmax": [0.0], "ymax": [0.0]})
    with pytest.raises(AnnotationError, match="no box with an area"):
        suggest_anchors(empty)
    with pytest.raises(TrainingError, match="k is 5, but must be a multiple of the 2 levels"):
        suggest_anchors(empty, 5)


# Matching


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_matching_as_by_brute_force(network, anchors, seed, count):
    anchors = anchors[::7]
    truth = random_boxes(seed, count)
    matched = network.proposal_matcher(box_iou(truth, anchors)).tolist()
    overlap = box_iou(truth, anchors).tolist()
    best_of_truth = [max(row) for row in overlap]
    for a in range(len(anchors)):
        column = [row[a] for row in overlap]
        best = max(column)
        wanted = column.index(best)
        # A label that no anchor fits well still gets the anchors that fit it best.
        forced = any(
            row[a] == top and top > 0 for row, top in zip(overlap, best_of_truth, strict=True)
        )
        if best < SMALL.bg_iou and not forced:
            wanted = -1
        elif best < SMALL.fg_iou and not forced:
            wanted = -2
        assert matched[a] == wanted


# Losses


def focal(logit: float, wanted: float, alpha: float, gamma: float) -> float:
    """Equation 5 of Lin et al. 2017."""
    p = 1 / (1 + math.exp(-logit))
    pt = p if wanted else 1 - p
    weight = alpha if wanted else 1 - alpha
    return -weight * (1 - pt) ** gamma * math.log(pt)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_losses_as_by_brute_force(network, anchors, seed, counts):
    anchors = anchors[::41]
    generator = torch.Generator().manual_seed(seed)
    shape = (len(counts), len(anchors))
    logits = torch.randn(*shape, 2, generator=generator) * 2
    offsets = torch.randn(*shape, 4, generator=generator) * 0.3
    targets, matched = [], []
    for i, count in enumerate(counts):
        boxes = random_boxes(seed + i, count)
        labels = torch.randint(0, 2, (count,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels})
        nothing = torch.full((len(anchors),), -1)
        matched.append(network.proposal_matcher(box_iou(boxes, anchors)) if count else nothing)
    outputs = {"cls_logits": logits, "bbox_regression": offsets}
    losses = network.head.compute_loss(targets, outputs, [anchors] * len(counts), matched)

    positives, classification, regression = 0, 0.0, 0.0
    for i in range(len(counts)):
        for a, anchor in enumerate(anchors):
            m = int(matched[i][a])
            if m == -2:
                continue
            for c in range(2):
                wanted = float(m >= 0 and int(targets[i]["labels"][m]) == c)
                classification += focal(float(logits[i, a, c]), wanted, 0.3, 1.5)
            if m >= 0:
                positives += 1
                dx, dy, dw, dh = offsets[i, a].tolist()
                x0, y0, x1, y1 = anchor.tolist()
                w, h = x1 - x0, y1 - y0
                x, y = x0 + w / 2 + dx * w, y0 + h / 2 + dy * h
                w, h = w * math.exp(dw), h * math.exp(dh)
                box = torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]])
                regression += 1 - float(generalized_box_iou(box, targets[i]["boxes"][m : m + 1]))
    count = max(positives, 1)
    assert float(losses["classification"]) == pytest.approx(classification / count, rel=1e-4)
    assert float(losses["bbox_regression"]) == pytest.approx(regression / count, rel=1e-3, abs=1e-5)


def test_a_classes_loss_is_torchvisions_where_both_divide_alike():
    """One image: torchvision divides by its positives, as we do over a batch."""
    torch.manual_seed(4)
    net = build_retinanet(RetinaNetConfig(num_classes=2, min_size=64, max_size=64))
    config = SingleShotConfig(num_classes=2, channels=8, head_convs=0)
    ours = build_singleshot(config)
    anchors = random_boxes(1, 50)
    boxes = anchors[[3, 8]] + 1.0
    target = {"boxes": boxes, "labels": torch.tensor([1, 0])}
    matched = net.proposal_matcher(box_iou(boxes, anchors))
    logits = torch.randn(1, 50, 2)
    outputs = {"cls_logits": logits, "bbox_regression": torch.zeros(1, 50, 4)}
    theirs = net.head.classification_head.compute_loss([target], outputs, [matched])
    mine = ours.head.compute_loss([target], outputs, [anchors], [matched])["classification"]
    torch.testing.assert_close(mine, theirs)


# NMS and the caps around it


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_suppression_as_by_brute_force(network, anchors, seed):
    levels = [12 * 12 * 4, 6 * 6 * 4]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, len(anchors), 2, generator=generator) * 2
    offsets = torch.randn(1, len(anchors), 4, generator=generator) * 0.2
    outputs = {
        "cls_logits": list(logits.split(levels, 1)),
        "bbox_regression": list(offsets.split(levels, 1)),
    }
    split = [list(anchors.split(levels))]
    (found,) = network.postprocess_detections(outputs, split, [(96, 96)])

    boxes = network.box_coder.decode_single(offsets[0], anchors).clamp(0, 96)
    scores = logits[0].sigmoid()
    kept = []
    order = sorted(
        ((score, a, c) for a, row in enumerate(scores.tolist()) for c, score in enumerate(row)),
        reverse=True,
    )
    overlap = box_iou(boxes, boxes).numpy()
    for score, a, c in order:
        if all(c != other or overlap[a, b] <= 0.4 for _, b, other in kept):
            kept.append((score, a, c))
        if len(kept) == SMALL.detections_per_image:
            break
    np.testing.assert_allclose(found["scores"], [score for score, _, _ in kept], rtol=1e-6)
    assert found["labels"].tolist() == [c for _, _, c in kept]
    torch.testing.assert_close(found["boxes"], boxes[[a for _, a, _ in kept]])
