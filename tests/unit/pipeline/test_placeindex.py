"""The index of scenes by place finds what looking at every box finds."""

import numpy as np
import pytest

from geosweep.pipeline import _placeindex
from geosweep.pipeline._placeindex import PlaceIndex
from geosweep.pipeline._places import Places


def boxes_at(rng, count):
    corner = rng.uniform(-180, 170, (count, 2)) * (1, 0.4)
    boxes = np.concatenate([corner, corner + rng.exponential(1, (count, 2))], axis=1)
    boxes[::50, [0, 2]] = -180, 180  # those that cross the antimeridian
    return boxes


@pytest.mark.parametrize(("count", "sorted_at_a_time"), [(1, 1000), (64, 1000), (3000, 700)])
def test_scenes_are_found_by_place(count, sorted_at_a_time, monkeypatch):
    monkeypatch.setattr(_placeindex, "_SORTED", sorted_at_a_time)
    rng = np.random.default_rng(count)
    boxes, numbers = boxes_at(rng, count), np.arange(count) * 2
    index = PlaceIndex()
    for start in range(0, count, 100):
        some = numbers[start : start + 100]
        rows = ((f"s{number}", None, None, None, None, b"") for number in some)
        index.add(Places(some, boxes[start : start + 100], rows))
    index.pack()
    for box in [*boxes[:20], *boxes_at(rng, 50), (-180.0, -90.0, 180.0, 90.0)]:
        touched = (boxes[:, :2] <= box[2:]).all(axis=1) & (boxes[:, 2:] >= box[:2]).all(axis=1)
        found = [index.row(number)[0] for number in index.near(tuple(map(float, box)))]
        assert found == [f"s{number}" for number in numbers[touched]]
    index.close()


def test_an_index_of_nothing_finds_nothing():
    index = PlaceIndex()
    index.pack()
    assert index.near((-180.0, -90.0, 180.0, 90.0)) == []
