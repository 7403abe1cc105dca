"""Against stac-fastapi on pgstac: an API with the filter and sort extensions, on PostgreSQL."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import geopandas
import pytest
import rasterio
import shapely
from rasterio.warp import transform_bounds
from shapely import Polygon, box
from shapely.geometry import mapping

from geosweep.catalog import SourceError, open_source
from geosweep.pipeline import Job, plan, run
from tests.scenes import assert_sums, job_over, painted_scene
from tests.servers import range_server
from tests.stacservers import collection, post
from tests.unit.catalog.helpers import make_item

COUNT = 450  # three pages


@pytest.fixture(scope="module")
def loaded(pgstac, proxy):
    """A collection of items side by side from 170° west across the antimeridian, a day apart."""
    post(f"{pgstac}/collections", collection("row"))
    items = []
    for number in range(COUNT):
        item = make_item(
            f"i{number}",
            "https://pixels.invalid/x.tif",
            west=-180 + number / 2,
            when=datetime(2022, 1, 1 + number % 28, tzinfo=UTC),
            collection="row",
        )
        item["properties"]["tens"] = number % 10
        items.append(item)
    edge = make_item("i999", "https://pixels.invalid/x.tif", west=179, collection="row")
    post(
        f"{pgstac}/collections/row/items", {"type": "FeatureCollection", "features": [*items, edge]}
    )
    return proxy


@pytest.fixture
def api(loaded):
    loaded.forget()
    return loaded


def numbers(api, **fields):
    source = open_source({"stac": api.url, "collections": "row", **fields})
    return [int(scene.item_id[1:]) for scene in source]


def test_every_page_is_read_once(api):
    assert sorted(numbers(api)) == [*range(COUNT), 999]
    assert len(api.searches) == 3
    assert len(numbers(api, limit=201)) == 201
    assert len(api.searches) == 5


def test_cql2_is_left_to_the_server(api, caplog):
    expression = {"op": "and", "args": [
        {"op": "=", "args": [{"property": "tens"}, 3]},
        {"op": ">", "args": [{"property": "datetime"}, {"timestamp": "2022-01-14T00:00:00Z"}]},
    ]}  # fmt: skip
    with caplog.at_level(logging.WARNING, "geosweep"):
        found = numbers(api, filter=expression)
    assert sorted(found) == [n for n in range(COUNT) if n % 10 == 3 and n % 28 > 13]
    assert not caplog.records
    assert [search["filter"] for search in api.searches] == [expression]
    assert api.searches[0]["filter-lang"] == "cql2-json"


def test_the_same_cql2_on_our_side(api, tmp_path):
    """What the server finds, our own filter finds among all its items."""
    everything = open_source({"stac": api.url, "collections": "row"})
    list(everything)
    pages: list[dict] = []
    api.edit = lambda page: pages.extend(page["features"])
    numbers(api)
    path = tmp_path / "items.ndjson"
    path.write_text("\n".join(map(json.dumps, pages)))
    tens, when = {"property": "tens"}, {"property": "datetime"}
    area = mapping(box(-100.2, 44, -98.3, 45))
    for expression in (
        {"op": "in", "args": [tens, [1, 2]]},
        {"op": "between", "args": [tens, 2, 4]},
        {"op": "not", "args": [{"op": "<", "args": [tens, 9]}]},
        {"op": "isNull", "args": [tens]},
        {"op": "like", "args": [{"property": "id"}, "i9%"]},
        {"op": "s_intersects", "args": [{"property": "geometry"}, area]},
        {"op": "<=", "args": [when, {"timestamp": "2022-01-02T00:00:00Z"}]},
    ):
        ours = open_source({"stac": str(path), "filter": expression})
        found = sorted(int(scene.item_id[1:]) for scene in ours)
        assert found and found == sorted(numbers(api, filter=expression)), expression


def test_area_and_time(api, tmp_path):
    assert sorted(numbers(api, bbox=(-179.9, 44.5, -176.1, 44.6))) == list(range(8))
    assert "bbox" in api.searches[-1]
    across = numbers(api, bbox=(179.5, 44.5, -179.6, 44.6))
    assert sorted(across) == [0, 999]
    triangle = geopandas.GeoDataFrame(
        geometry=[Polygon([(-170, 44.2), (-168, 44.2), (-170, 44.8)])], crs="EPSG:4326"
    )
    triangle.to_parquet(tmp_path / "area.parquet")
    inside = numbers(api, intersects=str(tmp_path / "area.parquet"))
    assert sorted(inside) == [19, 20, 21, 22, 23]
    assert api.searches[-1]["intersects"]["type"] == "Polygon"
    assert numbers(api, bbox=(-180, 44, -170, 45), datetime="2022-01-05/2022-01-06") == [5, 4]


def test_sorted_and_limited(api):
    assert numbers(api, sortby=["properties.tens", "-id"], limit=3) == [90, 80, 70]  # ids are text
    assert api.searches[-1]["limit"] == 3


def test_busy_then_well(api):
    api.failures = [(503, {}), (429, {"Retry-After": "0"})]
    assert len(numbers(api)) == COUNT + 1


def test_errors_are_one_sentence(api):
    with pytest.raises(SourceError, match=r"has no collection 'rows': did you mean 'row'\?"):
        open_source({"stac": api.url, "collections": "rows"}).__iter__().__next__()
    with pytest.raises(SourceError, match="a collection of a STAC API: give the API's root"):
        list(open_source({"stac": f"{api.url}/collections/row"}))
    with pytest.raises(SourceError, match="one page of a STAC API's answer"):
        list(open_source({"stac": f"{api.url}/collections/row/items"}))


def test_a_run_over_an_api(pgstac, tmp_path):
    """Scenes of an API give the rows that the same rasters give; an area file limits them."""
    (tmp_path / "pixels").mkdir()
    rasters = [painted_scene(tmp_path / "pixels", n, step_m=200) for n in range(2)]
    expected = run(job_over(rasters, tmp_path / "plain"), engine="local").to_geopandas()
    with range_server(tmp_path / "pixels") as images:
        post(f"{pgstac}/collections", collection("painted"))
        for path in rasters:
            post(f"{pgstac}/collections/painted/items", item_of(path, f"{images.url}/{path.name}"))
        blocks = {
            "name": "api",
            "detector": {"model": "tests.detectors:paint"},
            "output": {"path": str(tmp_path / "api")},
        }
        source = {"stac": pgstac, "collections": ["painted"]}
        job = Job.from_dict({**blocks, "source": source})
        result = run(job, engine="local")
        assert (result.counts["scenes"], result.counts["succeeded"]) == (2, 2)
        assert_sums(result.counts)
        found = result.to_geopandas()
        assert boxes(found) == boxes(expected) and len(found) > 50

        west, south, east, north = expected.total_bounds
        corner = Polygon([(west, south), (east, south), (west, north)])
        middles = shapely.centroid(expected.geometry.to_numpy())
        inside = expected[shapely.within(middles, corner)]
        geopandas.GeoSeries([corner], crs="EPSG:4326").to_file(tmp_path / "corner.gpkg")
        source["intersects"] = str(tmp_path / "corner.gpkg")
        blocks["output"] = {"path": str(tmp_path / "corner")}
        limited = Job.from_dict({**blocks, "source": source})
        summary = plan(limited, measure=False)
        assert summary.windows_skipped_aoi > 0
        assert boxes(run(limited, engine="local").to_geopandas()) == boxes(inside)


def item_of(path, href):
    with rasterio.open(path) as raster:
        west, south, east, north = transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
        item = make_item(path.stem, href, collection="painted")
        item["geometry"] = mapping(box(west, south, east, north))
        item["bbox"] = [west, south, east, north]
        item["properties"] |= {
            "proj:code": raster.crs.to_string(),
            "proj:transform": list(raster.transform)[:6],
            "proj:shape": list(raster.shape),
        }
    return item


def boxes(frame):
    columns = ["scene_id", "xmin", "ymin", "xmax", "ymax", "label", "score"]
    return sorted(frame[columns].itertuples(index=False, name=None))
