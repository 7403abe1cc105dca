"""Complete rows by columns, and the same rows as items: the same scenes, in the same order."""

import json
from copy import deepcopy

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from shapely.geometry import mapping

from geosweep.catalog import SourceSpec
from geosweep.catalog.errors import SourceError
from geosweep.catalog.geoparquet import write_items
from geosweep.catalog.itemcolumns import CompleteRow, read_rows
from geosweep.catalog.itemsource import ItemSource
from tests.detectors import grey
from tests.rasters import write_raster


class ItemByItem(ItemSource):
    """The slow way for every row."""

    _plain_asset = None


def item(name, **changes):
    """A complete item; a change of None takes a field away."""
    found = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "c",
        "geometry": mapping(shapely.box(-110.1, 44, -110, 44.1)),
        "bbox": [-110.1, 44, -110, 44.1],
        "links": [],
        "properties": {
            "datetime": "2024-05-01T10:20:30.123456Z",
            "updated": "2024-06-01T00:00:00Z",
            "proj:code": "EPSG:32612",
            "proj:shape": [100, 200],
            "proj:transform": [0.1, 0.0, 5e5, 0.0, -0.1, 5e6],
        },
        "assets": {"image": {"href": f"https://example.com/{name}.tif"}},
    }
    for key, value in changes.items():
        place = found
        *path, last = key.split("__")
        for part in path:
            place = place[part]
        if value is None:
            place.pop(last, None)
        else:
            place[last.replace("_", ":") if last.startswith(("proj", "file")) else last] = value
    return found


BOW_TIE = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}
HIGH = {"type": "Polygon", "coordinates": [[[0, 0, 5], [1, 0, 5], [1, 1, 5], [0, 0, 5]]]}
JUMP = {"type": "Polygon", "coordinates": [[[179, 0], [-179, 0], [-179, 1], [179, 1], [179, 0]]]}
BEYOND = {"type": "Polygon", "coordinates": [[[179, 0], [182, 0], [182, 1], [179, 1], [179, 0]]]}
POINT = {"type": "Point", "coordinates": [-110, 44]}
TWO = mapping(shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)]))


def rows(folder):
    raster = write_raster(folder / "there.tif", grey(40, 30))
    other_grid = {"proj:code": "EPSG:32613", "proj:shape": [7, 8]}
    complete = [
        item("plain"),
        item("other", collection="d"),
        item("old", properties__datetime="2021-05-01T00:00:00Z"),
        item("asset's grid", assets__image={"href": "https://example.com/a.tif", **other_grid}),
        item("asset's time", assets__image__updated="2024-06-02T00:00:00+02:00"),
        item("checksum", assets__image={"href": "s3://b/c.tif", "file:checksum": "1220ab"}),
        item("nine", properties__proj_transform=[0.1, 0, 5e5, 0, -0.1, 5e6, 0.0, 0.0, 1.0]),
        item("high", geometry=HIGH),
        item("two", geometry=TWO),
        item("Namesake"),
        item("namesake", collection="d"),
    ]
    # Each with something that needs a second look.
    others = [
        item("bow tie", geometry=BOW_TIE),
        item("jump", geometry=JUMP),
        item("beyond", geometry=BEYOND),
        item("point", geometry=POINT),
        item("nowhere", geometry=None, bbox=None),
        item("local", assets__image__href=str(raster)),
        item("relative", assets__image__href="./there.tif"),
        item("missing", assets__image__href="./gone.tif"),
        item("header", assets__image__href=str(raster), properties__proj_shape=None),
        item("no such CRS", assets__image__href=str(raster), properties__proj_code="EPSG:1"),
        item("no asset", assets={"thumbnail": {"href": "https://example.com/t.png"}}),
        item(
            "interval",
            properties__datetime=None,
            properties__start_datetime="2024-01-01T00:00:00Z",
            properties__end_datetime="2024-02-01T00:00:00Z",
        ),
    ]
    mixed = [entry for pair in zip(complete, others, strict=False) for entry in pair] + others[11:]
    return [*mixed, deepcopy(complete[0]), deepcopy(others[0])], len(complete)


def both_ways(path, **fields):
    spec = SourceSpec(stac=str(path), **{"asset": "image", **fields})
    sources = ItemSource(spec), ItemByItem(spec)
    found = [list(source) for source in sources]
    tallies = [
        (one.total, one.duplicates, one.outside_aoi, one.outside_datetime, one.other_collection)
        for one in sources
    ]
    return found, tallies


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"collections": ("d",)},
        {"datetime": "2024"},
        {"bbox": (-110.5, 43, -109, 44.05)},
        {"limit": 5},
    ],
)
def test_both_ways_give_the_same_scenes(tmp_path, fields):
    items, _ = rows(tmp_path)
    write_items(items, tmp_path / "items.parquet")
    (quick, slow), (quick_tally, slow_tally) = both_ways(tmp_path / "items.parquet", **fields)
    assert quick == slow
    assert quick_tally == slow_tally
    assert [one.source_version for one in quick] == [one.source_version for one in slow]
    if not fields:
        assert len(quick) == len(items) - 2


def test_complete_rows_do_go_by_columns(tmp_path):
    items, complete = rows(tmp_path)
    write_items(items, tmp_path / "items.parquet")
    found = [isinstance(row, CompleteRow) for row in read_rows(tmp_path / "items.parquet", "image")]
    assert (len(found), sum(found)) == (len(items), complete + 1)


def test_row_groups_and_batches_stay_in_step(tmp_path):
    items = [item(f"i{n}", **({"geometry": BOW_TIE} if n % 997 == 0 else {})) for n in range(9000)]
    write_items(items, tmp_path / "one.parquet")
    table = pq.read_table(tmp_path / "one.parquet")
    pq.write_table(table, tmp_path / "items.parquet", row_group_size=5000)
    (quick, slow), _ = both_ways(tmp_path / "items.parquet")
    assert quick == slow
    assert [scene.id for scene in quick] == [f"i{n}" for n in range(9000)]


@pytest.mark.parametrize("change", ["json assets", "storage", "no zone", "nanoseconds"])
def test_files_of_another_form_are_read_item_by_item(tmp_path, change):
    items = [item("a"), item("b")]
    if change == "storage":
        items[0]["assets"]["image"] |= {"href": "s3://b/a.tif", "storage:region": "us-west-2"}
    path = tmp_path / "items.parquet"
    write_items(items, path)
    table = pq.read_table(path)
    if change == "json assets":
        texts = pa.array([json.dumps(one["assets"]) for one in items])
        table = table.set_column(table.schema.get_field_index("assets"), "assets", texts)
    elif change in ("no zone", "nanoseconds"):
        kind = pa.timestamp("us") if change == "no zone" else pa.timestamp("ns", "UTC")
        place = table.schema.get_field_index("datetime")
        table = table.set_column(place, "datetime", table["datetime"].cast(kind))
    pq.write_table(table, path)
    assert not any(isinstance(row, CompleteRow) for row in read_rows(path, "image"))
    (quick, slow), _ = both_ways(path)
    assert quick == slow
    assert len(quick) == 2


def test_an_asset_that_no_item_has_is_the_jobs_mistake(tmp_path):
    write_items([item("a")], tmp_path / "items.parquet")
    with pytest.raises(SourceError, match="item a has no asset 'red', it has image"):
        both_ways(tmp_path / "items.parquet", asset="red")
