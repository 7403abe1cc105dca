"""Thresholds against brute force; what becomes of a window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from geosweep.catalog.errors import ModelError
from geosweep.models import TileVerdict, choose_threshold, judge_windows
from geosweep.models.tilethreshold import NEVER, choose_label_threshold, upper_bound

V = TileVerdict


@st.composite
def validations(draw):
    """Scores with ties, counts with at least one object, windows kept by a label, a target."""
    n = draw(st.integers(1, 40))
    coarse = st.sampled_from([0.0, 0.1, 0.5, 0.75, 0.99])
    fine = st.floats(0, 1, exclude_max=True, width=32)
    scores = draw(st.lists(st.one_of(coarse, fine), min_size=n, max_size=n))
    counts = draw(st.lists(st.integers(0, 30), min_size=n, max_size=n).filter(any))
    kept = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    loss = draw(st.one_of(st.sampled_from([0.0, 0.005, 0.1]), st.floats(0, 0.99)))
    return np.array(scores, np.float32), np.array(counts), np.array(kept), loss


@settings(deadline=None)
@given(validations())
def test_threshold_is_the_one_that_brute_force_finds(validation):
    scores, counts, kept, loss = validation
    chosen = choose_threshold(scores, counts, loss, kept=kept)
    allowed = {}
    for threshold in [*map(float, scores[~kept]), NEVER]:
        dropped = (scores >= threshold) & ~kept
        if counts[dropped].sum() / counts.sum() <= loss:
            allowed[threshold] = int(dropped.sum())
    assert chosen.skipped == max(allowed.values())
    assert chosen.threshold == max(t for t, n in allowed.items() if n == chosen.skipped)
    dropped = (scores >= chosen.threshold) & ~kept
    assert chosen.lost == counts[dropped].sum()
    assert chosen.lost_share <= loss
    assert chosen.occupied_skipped == np.count_nonzero(counts[dropped])
    assert chosen.objects == counts.sum() and chosen.windows == len(scores)


@settings(deadline=None)
@given(validations())
def test_the_pipeline_drops_what_the_choice_counted(validation):
    scores, counts, kept, loss = validation
    chosen = choose_threshold(scores, counts, loss, kept=kept)
    table = np.stack([kept.astype(np.float32), scores], axis=1)
    verdicts = judge_windows(table, chosen.threshold, 0.5)
    assert (verdicts == V.EMPTY).sum() == chosen.skipped


@settings(deadline=None)
@given(validations(), st.sampled_from([0.3, 0.9, 1.0]))
def test_label_threshold_is_the_one_that_brute_force_finds(validation, highest):
    scores, counts, _, loss = validation
    total = counts.sum()
    allowed = [float(s) for s in scores if counts[scores < s].sum() / total <= loss]
    assert choose_label_threshold(scores, counts, loss, highest) == min(max(allowed), highest)


def test_label_threshold_of_a_label_without_objects():
    assert choose_label_threshold([0.1, 0.2], [0, 0]) == 0.9


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_bound_is_where_so_few_events_become_unlikely(trials, data):
    events = data.draw(st.integers(0, trials - 1))
    bound = upper_bound(events, trials, 0.95)
    assert binom.cdf(events, trials, bound) == pytest.approx(0.05, abs=1e-9)
    assert upper_bound(trials, trials) == 1


def test_bound_of_nothing_lost_is_the_rule_of_three():
    assert upper_bound(0, 600) == pytest.approx(3 / 600, rel=0.01)


def test_statement_says_what_the_data_cannot():
    chosen = choose_threshold([0.9, 0.8, 0.1], [0, 0, 20])
    assert chosen.threshold == pytest.approx(0.8)
    assert "0 of 20 objects (0.00%)" in chosen.statement
    assert "at most 13.91% of the objects" in chosen.statement  # 1 − 0.05^(1/20)
    assert "95.00% of the windows with objects" in chosen.statement  # of one window
    assert "measure again" in chosen.statement
    nothing = choose_threshold([0.1, 0.9], [0, 20])
    assert nothing.threshold == NEVER and nothing.skipped == 0
    assert "no window is dropped" in nothing.statement
    assert nothing.to_dict()["skipped_share"] == 0


def test_each_kind_of_window():
    scores = np.array(
        [[0.1, 0.0, 0.95], [0.1, 0.2, 0.5], [0.1, 0.8, 0.2], [0.7, 0.1, 0.95]], np.float32
    )
    assert judge_windows(scores, 0.9).tolist() == [
        V.EMPTY,
        V.UNCERTAIN,
        V.OBJECTS,
        V.EMPTY_AND_OBJECTS,
    ]
    # A threshold for each label: the second is never seen, the first from 0.1 on.
    assert judge_windows(scores, 0.9, (0.1, 1.0)).tolist() == [V.EMPTY_AND_OBJECTS, 2, 2, 3]
    assert judge_windows(scores, 1.0)[0] == V.UNCERTAIN
    assert judge_windows(scores[:0], 0.9).shape == (0,)


def test_whole_numbers_are_scores_too():
    assert judge_windows([[0, 1], [1, 0]], 0.9).tolist() == [V.EMPTY, V.OBJECTS]


def test_a_score_at_the_threshold_counts():
    scores = np.array([[0.0, 0.9]], np.float32)
    assert judge_windows(scores, 0.9) == V.EMPTY
    assert judge_windows(scores, float(scores[0, 1])) == V.EMPTY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1], [0]), "no object"),
        (([0.1, 0.2], [1]), "one of each per window"),
        (([1.0], [1]), "outside 0 ≤ score < 1"),
        (([np.nan], [1]), "outside 0 ≤ score < 1"),
        (([0.1], [1], 1.0), "max_loss is 1.0"),
        (([0.1, 0.2], [2, -1]), "negative"),
    ],
)
def test_bad_validation_data_is_named(arguments, message):
    with pytest.raises(ModelError, match=message):
        choose_threshold(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, 0.2], 0.9), r"shape \(2,\)"),
        (([[0.1]], 0.9), r"shape \(1, 1\)"),
        (([[0.1, 0.2]], 1.5), "empty_threshold is 1.5"),
        (([[0.1, 0.2]], float("nan")), "empty_threshold is nan"),
        (([[0.1, 0.2, 0.3]], 0.9, (0.1, 0.2, 0.3)), "3 label thresholds for 2"),
        (([[0.1, 0.2]], 0.9, -1), "label_thresholds is -1"),
    ],
)
def test_bad_scores_are_named(arguments, message):
    with pytest.raises(ModelError, match=message):
        judge_windows(*arguments)
