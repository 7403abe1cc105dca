"""Sums by cell: whatever is spilled to disk, every point is counted once, where it lies."""

import tracemalloc
from collections import Counter
from math import floor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geosweep.catalog.errors import JobError, OutputError
from geosweep.pipeline._cells import TILE, CellSums


def add(cells, x, y, score=0.5, area=2.0, code=None):
    x = np.asarray(x, float)
    wide = np.broadcast_to
    cells.add(x, np.asarray(y, float), wide(score, x.shape), wide(area, x.shape), code)


def counted(cells):
    """(row, column, code) to count, over all tiles; each only once."""
    found = {}
    for tile in cells.tiles():
        rows, columns = np.divmod(tile.cells, TILE)
        for row, column, code, count in zip(
            rows + tile.row, columns + tile.column, tile.codes, tile.entries["count"], strict=True
        ):
            assert (row, column, code) not in found
            found[int(row), int(column), int(code)] = int(count)
    return found


POINTS = st.lists(
    st.tuples(st.floats(-3e5, 3e5), st.floats(-3e5, 3e5), st.integers(0, 3), st.integers(1, 5)),
    max_size=60,
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(points=POINTS, limit=st.sampled_from([2, 7, 1000]), cell=st.sampled_from([0.7, 100.0, 5e4]))
def test_every_point_counts_in_its_cell_however_little_fits_in_memory(
    tmp_path, points, limit, cell
):
    cells, expected = CellSums(cell, tmp_path, limit=limit), Counter()
    for x, y, code, times in points:
        add(cells, [x] * times, [y] * times, code=np.full(times, code))
        expected[floor(-y / cell), floor(x / cell), code] += times
    assert counted(cells) == expected
    assert cells.points == sum(expected.values())
    if expected:
        rows, columns = ({key[axis] for key in expected} for axis in (0, 1))
        assert cells.rows == (min(rows), max(rows))
        assert cells.columns == (min(columns), max(columns))


def test_sums_know_what_has_no_score_or_area(tmp_path):
    cells = CellSums(10.0, tmp_path, limit=3)
    nan = np.nan
    add(cells, [1, 1, 1, 1, 25], [-1] * 5, score=[0.5, nan, 0.25, 1, 1], area=[nan, 3, 4, nan, nan])
    (tile,) = cells.tiles()
    first, second = tile.entries
    assert tuple(first)[1:] == (4, 1.75, 3, 7.0, 2)
    assert tuple(second)[1:] == (1, 1.0, 1, 0.0, 0)


def test_cells_have_their_upper_and_left_edges(tmp_path):
    cells = CellSums(10.0, tmp_path)
    add(cells, [0, 10, -10, 0, 0], [0, 0, 0, 10, -10])
    assert counted(cells) == {
        (0, 0, 0): 1,
        (0, 1, 0): 1,
        (0, -1, 0): 1,
        (-1, 0, 0): 1,
        (1, 0, 0): 1,
    }


def test_tiles_come_in_raster_order_and_more_may_follow(tmp_path):
    cells = CellSums(1.0, tmp_path, limit=4)
    rng = np.random.default_rng(1)
    for _ in range(20):
        add(cells, rng.uniform(-2000, 2000, 10), rng.uniform(-2000, 2000, 10))
    places = [(tile.row, tile.column) for tile in cells.tiles()]
    assert places == sorted(set(places))
    add(cells, [0.5], [0.5])
    assert sum(counted(cells).values()) == 201


def test_cells_that_cannot_be_numbered_are_refused_with_a_size_that_works(tmp_path):
    with pytest.raises(
        JobError, match=r"Cells of 0\.01 are too small .*take at least 0\.301"
    ) as caught:
        add(CellSums(0.01, tmp_path), [2e7], [0])
    least = float(str(caught.value).split()[-1].rstrip("."))
    cells = CellSums(least, tmp_path)
    add(cells, [2e7, -2e7], [-2e7, 2e7])
    assert sum(counted(cells).values()) == 2


def test_a_disk_that_takes_nothing_is_one_sentence(tmp_path):
    cells = CellSums(1.0, tmp_path / "gone", limit=2)
    with pytest.raises(OutputError, match="set TMPDIR to a folder with more room"):
        add(cells, range(9), range(9))


def peak(folder, count):
    """Bytes that `count` points over a continent need at most."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    tracemalloc.start()
    cells = CellSums(1000.0, folder, limit=1 << 15)
    for _ in range(count // 10_000):
        add(cells, *rng.uniform(-2.5e6, 2.5e6, (2, 10_000)))
    total = sum(int(tile.entries["count"].sum()) for tile in cells.tiles())
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == count
    assert len(list(folder.iterdir())) > count / 60_000  # it did spill
    return memory


def test_memory_does_not_grow_with_the_number_of_points(tmp_path):
    few, many = peak(tmp_path / "few", 100_000), peak(tmp_path / "many", 1_000_000)
    assert many < 1.3 * few < 20e6
