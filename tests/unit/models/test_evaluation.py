"""Matching and AP against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosweep.models.evaluation import average_precision, box_iou, box_metrics, match_boxes

boxes = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 9), st.integers(1, 9)),
    max_size=7,
).map(lambda rows: np.array([[x, y, x + w, y + h] for x, y, w, h in rows], float).reshape(-1, 4))


def iou_by_counting(a, b):
    """IoU of integer boxes by counting pixels."""
    grid = np.zeros((2, 30, 30), bool)
    for layer, box in zip(grid, (a, b), strict=True):
        x0, y0, x1, y1 = (int(v) for v in box)
        layer[y0:y1, x0:x1] = True
    return (grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum()


@given(boxes, boxes)
def test_iou_counts_pixels(a, b):
    found = box_iou(a, b)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        assert found[i, j] == pytest.approx(iou_by_counting(a[i], b[j]))


@settings(deadline=None)
@given(boxes, boxes, st.sampled_from([0.2, 0.4, 0.5]), st.randoms(use_true_random=False))
def test_matching_is_greedy_and_one_to_one(a, b, iou, random):
    scores = np.array([random.random() for _ in a])
    found = match_boxes(a, scores, b, iou)
    free = set(range(len(b)))
    for i in sorted(range(len(a)), key=lambda i: -scores[i]):
        candidates = [(iou_by_counting(a[i], b[j]), -j) for j in free]
        best = max(candidates, default=(0.0, 0))
        if candidates and best[0] >= iou:
            # Of equally good ones any will do.
            assert found[i] in free
            assert iou_by_counting(a[i], b[found[i]]) == pytest.approx(best[0])
            free.remove(int(found[i]))
        else:
            assert found[i] == -1


@given(st.lists(st.booleans(), max_size=9), st.integers(1, 12))
def test_average_precision_is_the_area_under_the_envelope(correct, truths):
    truths = max(truths, sum(correct))
    scores = np.linspace(1, 0.1, len(correct))
    points = [(sum(correct[:n]) / truths, sum(correct[:n]) / n) for n in range(1, len(correct) + 1)]
    # For each recall step of 1 / truths: the best precision at that recall or beyond.
    expected = sum(
        max((p for r, p in points if r >= k / truths - 1e-12), default=0.0) / truths
        for k in range(1, truths + 1)
    )
    found = average_precision(np.array(correct, bool), scores, truths)
    assert found == pytest.approx(expected)


def test_worked_example():
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    found = np.array([[0, 0, 10, 8], [1, 0, 11, 10], [50, 50, 60, 60], [20, 0, 30, 10]], float)
    scores = np.array([0.9, 0.8, 0.7, 0.2])
    result = box_metrics([found], [scores], [truth], iou=0.5, score_threshold=0.5)
    assert (result.matches, result.predictions, result.truths) == (1, 3, 2)
    assert result.precision == pytest.approx(1 / 3)
    assert result.recall == 0.5
    assert result.f1 == pytest.approx(0.4)
    assert result.average_precision == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_nothing_labelled_or_nothing_found():
    none = np.zeros((0, 4))
    empty = box_metrics([none], [np.zeros(0)], [none])
    assert np.isnan([empty.precision, empty.recall, empty.f1, empty.average_precision]).all()
    missed = box_metrics([none], [np.zeros(0)], [np.array([[0, 0, 1, 1]])])
    assert (missed.recall, missed.f1, missed.average_precision) == (0, 0, 0)
