"""Scenes in the order in which the driver hands them out."""

import pytest

from geosweep.pipeline.driver import _Tasks


@pytest.mark.parametrize("number", [None, 3, 5, 2])
def test_all_tasks_are_handed_out_whatever_was_said_of_their_number(number):
    tasks = _Tasks(iter("abc"), number)
    assert tasks.left == number
    seen = []
    while not tasks.are_over() and (following := tasks.take()) is not None:
        seen.append(following)
        if following == ("b", 1):
            tasks.put_back("b", 2)
    assert seen == [("a", 1), ("b", 1), ("b", 2), ("c", 1)]
    assert tasks.are_over()
    assert tasks.left == 0
    assert tasks.take() is None


def test_the_end_is_known_with_the_last_task_where_their_number_is():
    known, unknown = _Tasks(iter("a"), 1), _Tasks(iter("a"), None)
    assert known.take() == unknown.take() == ("a", 1)
    assert known.are_over()
    assert not unknown.are_over()
    assert unknown.left is None
    assert unknown.take() is None
    assert unknown.are_over()
