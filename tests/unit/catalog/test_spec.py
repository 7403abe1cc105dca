from __future__ import annotations

import datetime as dt

import pytest
from pydantic import ValidationError

from geosweep.catalog import SourceError, SourceSpec, open_source
from geosweep.catalog.intervals import overlaps, parse_interval
from geosweep.catalog.spec import bbox_geometry


def test_one_raster_and_rescale_forms():
    spec = SourceSpec(rasters="a.tif", rescale=[0, 3000], bands=[4, "red", 2])
    assert spec.rasters == ("a.tif",)
    assert spec.rescale == ((0.0, 3000.0),)
    assert spec.bands == (4, "red", 2)
    two = SourceSpec(rasters=["a.tif"], rescale=[[0, 1], [0, 2]])
    assert two.rescale == ((0.0, 1.0), (0.0, 2.0))
    assert SourceSpec(**spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "exactly one"),
        ({"stac": "a.json", "rasters": ["a.tif"]}, "exactly one"),
        ({"rasters": []}, "empty list"),
        ({"rasters": ["a"], "asset": "image"}, "source.asset goes with"),
        ({"rasters": ["a"], "sortby": "id"}, "source.sortby goes with"),
        ({"stac": "a.json", "limit": 0}, "limit"),
        ({"rasters": ["a"], "bands": [0, 1, 2]}, "numbered from 1"),
        ({"rasters": ["a"], "rescale": [5, 5]}, "low must be below high"),
        ({"rasters": ["a"], "datetime": "yesterday"}, "'yesterday'"),
        ({"rasters": ["a"], "datetime": "2023/2022"}, "ends before"),
        ({"rasters": ["a"], "bbox": [500000, 0, 500100, 1]}, "not in degrees"),
        ({"rasters": ["a"], "bbox": [0, 2, 1, 1]}, "south must be below"),
        ({"rasters": ["a"], "bbox": [-110, 44, -111, 45]}, "west must be below"),
        ({"rasters": ["a"], "colections": ["x"]}, "colections"),
    ],
)
def test_mistakes(fields, says):
    with pytest.raises(ValidationError, match=says):
        SourceSpec(**fields)
    with pytest.raises(SourceError, match=says) as caught:
        open_source(fields)
    assert "\n" not in str(caught.value)


def test_antimeridian_bbox():
    area = bbox_geometry(SourceSpec(rasters="a", bbox=(179, -1, -179, 1)).bbox)
    assert area.area == pytest.approx(4)
    assert area.bounds == (-180, -1, 180, 1)


def test_buckets_hold_no_api():
    with pytest.raises(SourceError, match="neither a STAC file"):
        open_source({"stac": "s3://bucket/v1"})


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2022", (2022, 1, 1), (2022, 12, 31)),
        ("2022-02", (2022, 2, 1), (2022, 2, 28)),
        ("2022-02-03/..", (2022, 2, 3), None),
        ("../2024-02", None, (2024, 2, 29)),
    ],
)
def test_intervals(text, start, end):
    found = parse_interval(text)
    day = dt.timedelta(days=1, microseconds=-1)
    assert found[0] == (start and dt.datetime(*start, tzinfo=dt.UTC))
    assert found[1] == (end and dt.datetime(*end, tzinfo=dt.UTC) + day)


def test_yaml_dates_and_offsets():
    assert SourceSpec(rasters="a", datetime=dt.date(2022, 1, 1)).datetime == "2022-01-01"
    assert SourceSpec(rasters="a", datetime=2022).datetime == "2022"
    noon = parse_interval("2022-01-01T12:00:00+02:00")
    assert noon[0] == dt.datetime(2022, 1, 1, 10, tzinfo=dt.UTC)
    assert overlaps(noon, (None, None))
    assert not overlaps(noon, parse_interval("2022-01-02/.."))
