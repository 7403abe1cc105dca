"""Results in order, by several threads, of a bounded number of tasks."""

import threading

import pytest

from geosweep.pipeline._ahead import read_ahead


def test_results_come_in_the_order_of_their_tasks_whoever_is_first():
    other_is_done = threading.Event()

    def slow(task):
        assert other_is_done.wait(20)
        return "slow", task

    def quick(task):
        if task == 6:
            other_is_done.set()
        return "quick", task

    results = list(read_ahead([slow, quick], range(12), 8))
    assert [task for _, task in results] == list(range(12))
    assert {who for who, _ in results} == {"slow", "quick"}


@pytest.mark.parametrize("readers", [1, 3])
def test_no_more_is_done_ahead_than_asked_for(readers):
    begun, lock = [], threading.Lock()

    def read(task):
        with lock:
            begun.append(task)
        return task

    results = read_ahead([read] * readers, range(100), 4)
    for wanted in range(100):
        assert next(results) == wanted
        # What was handed over, and four more.
        assert len(begun) <= wanted + 1 + 4
    assert list(results) == []
    assert sorted(begun) == list(range(100))


@pytest.mark.parametrize("readers", [1, 3])
def test_an_error_comes_after_what_was_before_it_and_ends_the_threads(readers):
    before, begun = threading.active_count(), []

    def read(task):
        begun.append(task)
        if task == 2:
            raise ValueError("three")
        return task

    seen = []
    with pytest.raises(ValueError, match="three"):
        seen.extend(read_ahead([read] * readers, range(100), 3))
    assert seen == [0, 1]
    assert threading.active_count() == before
    assert len(begun) <= 2 + 3


def test_closing_ends_the_threads_even_before_all_was_done():
    before = threading.active_count()
    results = read_ahead([lambda task: task] * 3, range(10**9), 4)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before
