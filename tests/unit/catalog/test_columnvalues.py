"""Columns as Python values: what pyarrow's own conversion gives."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from geosweep.catalog._columnvalues import as_python, as_text
from geosweep.catalog.intervals import format_time

MOMENTS = [
    datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(1969, 12, 31, tzinfo=UTC),
]
FRACTION = datetime(2024, 1, 1, 0, 0, 0, 120, tzinfo=UTC)


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("moments", [MOMENTS, [*MOMENTS, None]])
def test_times(unit, zone, moments):
    if zone != "UTC":
        moments = [moment for moment in moments if moment is None or 1 < moment.year < 9999]
    column = pa.array(moments, pa.timestamp(unit, zone))
    assert as_python(column) == moments
    assert as_text(column) == [moment and format_time(moment) for moment in moments]


def test_fractions_of_seconds_stay():
    column = pa.array([*MOMENTS, FRACTION], pa.timestamp("us", "UTC"))
    assert as_python(column) == [*MOMENTS, FRACTION]
    assert as_text(column)[-1] == "2024-01-01T00:00:00.000120Z"


@pytest.mark.parametrize("kind", [pa.float64(), pa.int64(), pa.int32()])
@pytest.mark.parametrize(
    "lists", [[[1, 2], [3, 4]], [[1], [2, 3]], [[1, 2], None], [[1, None], [2, 3]], [[], []]]
)
def test_lists_of_numbers(kind, lists):
    column = pa.array([[0, 0], *lists], pa.list_(kind))[1:]
    assert as_python(column) == lists
    assert [[type(number) for number in numbers or ()] for numbers in as_python(column)] == [
        [type(number) for number in numbers or ()] for numbers in column.to_pylist()
    ]


def test_text_is_left_alone():
    assert as_text(pa.array(["2024-01-01", None])) == ["2024-01-01", None]
