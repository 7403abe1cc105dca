"""Window plans: coverage, cores, and agreement with DeepForest's windows."""

import numpy as np
import pytest
import shapely
import slidingwindow
from hypothesis import given
from hypothesis import strategies as st

from geosweep.pipeline.windows import WindowGrid

sizes = st.integers(1, 1500)
sides = st.integers(32, 500)
overlaps = st.floats(0, 0.9)


@given(sizes, sizes, sides, overlaps)
def test_windows_cover_the_raster_and_stay_inside(width, height, size, overlap):
    grid = WindowGrid.cover(width, height, size, overlap)
    for offsets, length in ((grid.xs, width), (grid.ys, height)):
        assert offsets[0] == 0
        assert offsets[-1] == max(length - size, 0)
        assert (np.diff(offsets) > 0).all()
        assert (np.diff(offsets) <= size).all()
    assert grid.count == len(grid.xs) * len(grid.ys)


@given(st.integers(32, 1500), st.integers(32, 1500), st.integers(32, 400), st.floats(0, 0.6))
def test_offsets_are_deepforests(width, height, size, overlap):
    if size > min(width, height):
        return
    grid = WindowGrid.cover(width, height, size, overlap)
    theirs = slidingwindow.generateForSize(
        width, height, slidingwindow.DimOrder.HeightWidthChannel, size, overlap
    )
    ours = {tuple(xy) for xy in grid.offsets(np.arange(grid.count)).tolist()}
    assert ours == {(w.x, w.y) for w in theirs}


@given(sizes, sizes, sides, st.floats(0, 0.6), st.data())
def test_every_point_is_in_the_core_of_a_window_that_holds_it(width, height, size, overlap, data):
    grid = WindowGrid.cover(width, height, size, overlap)
    x = data.draw(st.floats(0, width, exclude_max=True))
    y = data.draw(st.floats(0, height, exclude_max=True))
    index = np.arange(grid.count)
    owners = index[grid.in_core(index, np.full((grid.count, 2), (x, y)))]
    assert len(owners) >= 1
    corners = grid.offsets(owners)
    inside = (corners <= (x, y)) & ((x, y) < corners + size)
    assert inside.all(axis=1).any()


def test_an_object_whole_in_one_window_alone_is_in_that_ones_core():
    grid = WindowGrid.cover(780, 400, 400, 0.05)
    assert grid.xs.tolist() == [0, 380]
    rng = np.random.default_rng(0)
    for _ in range(500):
        half = rng.uniform(1, 150)
        centre = rng.uniform(half, 780 - half)
        in_first, in_second = centre + half <= 400, centre - half >= 380
        if in_first == in_second:
            continue
        owner = 0 if in_first else 1
        assert grid.in_core(np.array([owner]), np.array([[centre, 200.0]]))[0]


def test_a_window_in_the_middle_disowns_what_its_neighbours_own():
    grid = WindowGrid.cover(2000, 400, 400, 0.05)
    # Window 1 spans 380–780; its core reaches from the seam at 390 to the one at 770, plus 5.
    xs = np.array([384.0, 386.0, 500.0, 774.0, 776.0])
    inside = grid.in_core(np.ones(5, int), np.stack([xs, np.full(5, 200.0)], axis=1))
    assert inside.tolist() == [False, True, True, True, False]


def test_small_raster_has_one_window_with_a_valid_part():
    grid = WindowGrid.cover(300, 250, 400, 0.05)
    assert grid.count == 1
    assert grid.valid == (250, 300)


@pytest.mark.parametrize("overlap", [0.0, 0.05, 0.5])
def test_masks_agree_with_shapely_one_by_one(overlap):
    grid = WindowGrid.cover(1000, 700, 200, overlap)
    region = shapely.Polygon([(100, 50), (900, 300), (400, 690)])
    touched, covered = grid.touched(region), grid.covered(region)
    for row, y in enumerate(grid.ys):
        for column, x in enumerate(grid.xs):
            window = shapely.box(x, y, min(x + 200, 1000), min(y + 200, 700))
            assert touched[row, column] == region.intersects(window)
            assert covered[row, column] == region.covers(window)
