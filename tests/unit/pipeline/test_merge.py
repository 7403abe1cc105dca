"""Merging: greedy NMS against torchvision, seams, fragments, classes."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from geosweep.pipeline.detect import Found
from geosweep.pipeline.merge import merge_core, merge_nms
from geosweep.pipeline.windows import WindowGrid

GRID = WindowGrid.cover(780, 400, 400, 0.05)  # two windows: 0–400 and 380–780
WIDE = WindowGrid.cover(1160, 780, 400, 0.05)


def found(*rows):
    """Rows of (window, label, score, xmin, ymin, xmax, ymax)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Found(
        table[:, 3:].astype(np.float32),
        table[:, 1].astype(np.int64),
        table[:, 2].astype(np.float32),
        table[:, 0].astype(np.int64),
    )


def random_found(rng, count, spread=300.0, grid=WIDE):
    corner = rng.uniform(0, spread, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 80, (count, 2))], axis=1)
    return Found(
        boxes.astype(np.float32),
        np.zeros(count, np.int64),
        rng.uniform(0, 1, count).astype(np.float32),
        rng.integers(0, grid.count, count),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.floats(0.05, 0.9))
def test_nms_mode_is_torchvisions_nms_on_truncated_boxes(seed, count, iou):
    detections = random_found(np.random.default_rng(seed), count)
    merged = merge_nms(detections, WIDE, iou)
    expected = torchvision.ops.nms(
        torch.from_numpy(np.trunc(detections.boxes)), torch.from_numpy(detections.scores), iou
    )
    assert merged.source.tolist() == sorted(expected.tolist())
    np.testing.assert_array_equal(merged.found.boxes, detections.boxes[merged.source])


def test_the_same_object_from_two_windows_stays_once_with_the_better_score():
    merged = merge_core(
        found((0, 0, 0.6, 370, 100, 396, 130), (1, 0, 0.9, 384, 101, 397, 131)), GRID, 0.15
    )
    assert len(merged.found) == 1


def test_overlapping_neighbours_of_one_window_both_stay():
    pair = found((0, 0, 0.9, 100, 100, 140, 140), (0, 0, 0.8, 120, 100, 160, 140))
    assert len(merge_core(pair, GRID, 0.15).found) == 2


def test_neighbours_of_different_classes_across_a_seam_both_stay():
    pair = found((0, 0, 0.9, 360, 100, 394, 140), (1, 1, 0.8, 386, 100, 420, 140))
    assert len(merge_core(pair, GRID, 0.05).found) == 2


def test_two_fragments_of_a_wide_object_become_one():
    # 200 px wide, across the seam: IoU of the fragments is 20/200.
    parts = found((0, 0, 0.5, 290, 100, 400, 200), (1, 0, 0.7, 380, 102, 490, 201))
    merged = merge_core(parts, GRID, 0.15)
    assert merged.found.boxes.tolist() == [[290, 100, 490, 201]]
    assert merged.found.scores.tolist() == [pytest.approx(0.7)]
    assert merged.source.tolist() == [0]


def test_four_fragments_at_a_corner_become_one():
    # Windows 0, 1 above 3, 4 of a 3 × 2 grid; seams at 390 both ways.
    parts = found(
        (0, 0, 0.5, 330, 330, 400, 400),
        (1, 0, 0.6, 380, 330, 450, 400),
        (3, 0, 0.7, 330, 380, 400, 450),
        (4, 0, 0.8, 380, 380, 450, 450),
    )
    merged = merge_core(parts, WIDE, 0.15)
    assert merged.found.boxes.tolist() == [[330, 330, 450, 450]]


def test_joined_fragments_that_are_a_part_of_more_are_dropped():
    # The left window sees the object's full width, in two rows; the right one, in two rows, its right
    # part. Each pair is joined across the horizontal seam; the right pair is still cut off on its left.
    parts = found(
        (0, 0, 0.5, 340, 330, 396, 400),
        (1, 0, 0.9, 380, 330, 396, 400),
        (3, 0, 0.5, 340, 380, 396, 450),
        (4, 0, 0.9, 380, 380, 396, 450),
    )
    merged = merge_core(parts, WIDE, 0.5)
    assert merged.found.boxes.tolist() == [[340, 330, 396, 450]]


def test_fragments_that_do_not_span_the_common_strip_are_two_objects():
    # The first ends inside the strip, so its neighbour's window sees its border, too.
    parts = found((0, 0, 0.5, 290, 100, 385, 200), (1, 0, 0.7, 386, 100, 490, 200))
    assert len(merge_core(parts, GRID, 0.15).found) == 2


def test_a_part_beside_the_whole_is_dropped_even_with_a_better_score():
    parts = found((0, 0, 0.5, 250, 100, 399.9, 200), (1, 0, 0.9, 380, 100, 399, 200))
    merged = merge_core(
        Found(parts.boxes - [[4, 0, 4, 0], [0, 0, 0, 0]], parts.labels, parts.scores, parts.window),
        GRID,
        0.15,
    )
    assert merged.source.tolist() == [0]


def test_an_edge_of_the_raster_cuts_nothing():
    parts = found((0, 0, 0.5, 0, 0, 60, 60), (1, 0, 0.5, 700, 0, 780, 60))
    merged = merge_core(parts, GRID, 0.15)
    assert merged.source.tolist() == [0, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 200))
def test_core_merge_does_not_depend_on_order(seed, count):
    rng = np.random.default_rng(seed)
    detections = random_found(rng, count, spread=700)
    shuffled = rng.permutation(count)
    one, two = merge_core(detections, WIDE, 0.15), merge_core(detections[shuffled], WIDE, 0.15)
    np.testing.assert_array_equal(one.found.boxes, two.found.boxes)
    np.testing.assert_array_equal(one.source, shuffled[two.source])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 300))
def test_no_two_survivors_of_different_windows_overlap(seed, count):
    rng = np.random.default_rng(seed)
    window = rng.integers(0, WIDE.count, count)
    size = rng.uniform(5, 80, (count, 2))
    low = WIDE.offsets(window) + rng.uniform(0, 1, (count, 2)) * (400 - size)
    boxes = np.concatenate([low, low + size], axis=1).astype(np.float32)
    scores = rng.uniform(0, 1, count).astype(np.float32)
    merged = merge_core(Found(boxes, np.zeros(count, np.int64), scores, window), WIDE, 0.15).found
    overlap = torchvision.ops.box_iou(*[torch.from_numpy(merged.boxes)] * 2).numpy() > 0.15
    across = merged.window[:, None] != merged.window[None, :]
    assert not (overlap & across).any()


@pytest.mark.parametrize(
    "merge", [lambda f: merge_core(f, GRID, 0.15), lambda f: merge_nms(f, GRID, 0.15)]
)
def test_nothing_and_one_detection(merge):
    assert len(merge(Found.empty()).found) == 0
    single = found((1, 0, 0.5, 500, 10, 540, 60))
    np.testing.assert_array_equal(merge(single).found.boxes, single.boxes)
