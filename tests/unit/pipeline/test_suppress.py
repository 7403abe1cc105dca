"""Suppression and its cells, against comparing every box with every other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosweep.pipeline import _boxcells
from geosweep.pipeline._boxcells import BoxCells
from geosweep.pipeline.suppress import rivals_among, suppress


def some_boxes(rng, count):
    """Of very different sizes, some of no size; now and then one over all of them."""
    corner = rng.uniform(-1000, 1000, (count, 2))
    size = rng.choice([0, 1, 20, 200], (count, 2)) * rng.uniform(0.5, 1.5, (count, 2))
    if count and rng.random() < 0.3:
        corner[0], size[0] = -1000, 2500
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def overlapping(boxes):
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    return (high >= low).all(axis=-1)


def one_by_one(rank, rivals):
    kept = []
    for box in rank.tolist():
        if not rivals[box, kept].any():
            kept.append(box)
    return sorted(kept)


@pytest.fixture(params=[3, 1_000_000], ids=["few pairs at a time", "all at once"])
def pairs_at_a_time(request, monkeypatch):
    monkeypatch.setattr(_boxcells, "_PAIRS", request.param)


@pytest.mark.usefixtures("pairs_at_a_time")
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 120))
def test_suppression_equals_walking_from_best_to_worst(seed, count):
    rng = np.random.default_rng(seed)
    boxes = some_boxes(rng, count)
    rivals = overlapping(boxes) & (rng.random((count, count)) < 0.7)
    rivals |= rivals.T
    rank = rng.permutation(count)
    kept = suppress(boxes, rank, lambda a, b: rivals[a, b])
    assert np.flatnonzero(kept).tolist() == one_by_one(rank, rivals & ~np.eye(count, dtype=bool))


@pytest.mark.usefixtures("pairs_at_a_time")
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 120))
def test_rivals_are_those_of_all_overlapping_pairs(seed, count):
    rng = np.random.default_rng(seed)
    boxes = some_boxes(rng, count)
    wanted = overlapping(boxes) & (rng.random((count, count)) < 0.5)
    a, b = rivals_among(boxes, lambda a, b: wanted[a, b])
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == set(
        zip(*(part.tolist() for part in np.nonzero(wanted)), strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.floats(0.001, 1e6))
def test_cells_miss_no_overlap_at_any_scale(seed, count, scale):
    boxes = some_boxes(np.random.default_rng(seed), count) * np.float32(scale)
    a, b = BoxCells(boxes).near(np.arange(count, dtype=np.int32))
    near = np.zeros((count, count), bool)
    near[a, b] = True
    assert near[overlapping(boxes)].all()


def test_cells_are_few_where_one_box_lies_over_all():
    corner = np.random.default_rng(0).uniform(0, 10_000, (5000, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 10], axis=1)
    boxes[0] = (0, 0, 10_000, 10_000)
    a, _ = BoxCells(boxes).near(np.arange(1, 5000, dtype=np.int32))
    assert len(a) < 50 * 5000


def test_a_heap_of_equal_boxes_is_settled_by_its_best():
    boxes = np.tile(np.float32([10, 10, 30, 30]), (200_000, 1))
    rank = np.random.default_rng(0).permutation(len(boxes))
    asked = 0

    def rivals(a, b):
        nonlocal asked
        asked += len(a)
        return np.ones(len(a), bool)

    assert np.flatnonzero(suppress(boxes, rank, rivals)).tolist() == [rank[0]]
    assert asked < 10 * len(boxes)
