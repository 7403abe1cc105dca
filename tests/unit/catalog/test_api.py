"""Against rustac's server, which has neither filter nor sort extension, behind a real proxy."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

import geopandas
import pytest
from shapely import box

from geosweep.catalog import SourceError, open_source
from geosweep.catalog.apihttp import ApiHttp
from tests.servers import range_server
from tests.stacservers import free_port, proxy_server, rustac_server

from .helpers import make_item, write_json

COUNT = 450  # three pages


def api_items():
    """Items side by side from 170° west, a day apart, in two collections."""
    for number in range(COUNT):
        item = make_item(
            f"i{number}",
            "https://pixels.invalid/x.tif",
            west=-170 + number / 2,
            when=datetime(2022, 1, 1 + number % 28, tzinfo=UTC),
            collection="odd" if number % 2 else "even",
        )
        item["properties"]["gsd"] = number % 10
        if number % 3 == 0:
            item["properties"]["tag"] = "third"
        yield item


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with proxy_server() as proxy:
        folder = tmp_path_factory.mktemp("rustac")
        with rustac_server(list(api_items()), folder, proxy.url) as proxy.target:
            yield proxy


@pytest.fixture
def api(served):
    served.forget()
    return served


def numbers(scenes):
    return sorted(int(scene.item_id[1:]) for scene in scenes)


def refused(source, **fields):
    with pytest.raises(SourceError) as caught:
        list(open_source({"stac": source, **fields}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_page_is_read_once(api):
    source = open_source({"stac": api.url})
    scenes = list(source)
    assert numbers(scenes) == list(range(COUNT))
    assert (source.total, source.duplicates) == (COUNT, 0)
    assert scenes[0].crs == "EPSG:32612" and scenes[0].href == "https://pixels.invalid/x.tif"
    assert len(api.searches) == 3
    assert list(source) == scenes  # from what was kept
    assert len(api.searches) == 3


def test_limit_ends_the_paging(api):
    assert len(list(open_source({"stac": api.url, "limit": 250}))) == 250
    assert len(api.searches) == 2
    assert len(list(open_source({"stac": api.url, "limit": 7}))) == 7
    assert api.searches[-1]["limit"] == 7


def test_collections_bbox_and_time(api, tmp_path):
    west = {"stac": api.url, "bbox": (-169.9, 44.5, -166.1, 44.6)}
    assert numbers(open_source(west)) == list(range(8))
    assert api.searches[-1]["bbox"] == [-169.9, 44.5, -166.1, 44.6]
    assert numbers(open_source({**west, "collections": "odd"})) == [1, 3, 5, 7]
    assert numbers(open_source({**west, "datetime": "2022-01-02/2022-01-03"})) == [1, 2]
    assert api.searches[-1]["datetime"] == "2022-01-02T00:00:00Z/2022-01-03T23:59:59.999999Z"
    frame = geopandas.GeoDataFrame(
        geometry=[box(-169.9, 44, -169.8, 45), box(-166.2, 44, -166.1, 45)], crs="EPSG:4326"
    )
    frame.to_crs("EPSG:3857").to_file(tmp_path / "areas.gpkg")
    split = open_source({"stac": api.url, "intersects": str(tmp_path / "areas.gpkg")})
    assert numbers(split) == [0, 6, 7]


def test_filter_is_applied_here_with_a_warning(api, caplog):
    expression = {"op": "and", "args": [
        {"op": "=", "args": [{"property": "gsd"}, 3]},
        {"op": "=", "args": [{"property": "properties.tag"}, "third"]},
    ]}  # fmt: skip
    with caplog.at_level(logging.WARNING, "geosweep"):
        found = numbers(open_source({"stac": api.url, "filter": expression}))
    assert found == [n for n in range(COUNT) if n % 10 == 3 and n % 3 == 0]
    assert "no filter extension" in caplog.text
    assert all("filter" not in search for search in api.searches)
    api.forget()
    few = list(open_source({"stac": api.url, "filter": expression, "limit": 3}))
    assert numbers(few) == [3, 33, 63]
    assert len(api.searches) < 3


def test_items_repeated_across_pages_are_dropped_and_counted(api):
    last = []

    def repeat(page):
        page["features"] = [*last, *page["features"]]
        last[:] = page["features"][-1:]

    api.edit = repeat
    source = open_source({"stac": api.url})
    assert numbers(source) == list(range(COUNT))
    assert (source.total, source.duplicates) == (COUNT, 2)
    last.clear()
    assert len(list(open_source({"stac": api.url, "limit": 201}))) == 201


def test_an_empty_page_is_not_the_end(api):
    def hide(page):
        if len(api.searches) == 1:
            page["features"] = []

    api.edit = hide
    assert len(list(open_source({"stac": api.url}))) == COUNT - 200


def test_pages_in_a_circle(api):
    def turn(page):
        page["links"] = [{"rel": "next", "href": "search?limit=200&skip=0"}]

    api.edit = turn
    assert "in a circle" in refused(api.url)
    assert len(api.searches) == 2


def test_busy_servers_are_asked_again(api):
    api.failures = [(503, {}), (429, {"Retry-After": "1"}), (0, {})]
    start = time.monotonic()
    assert len(list(open_source({"stac": api.url}))) == COUNT
    assert time.monotonic() - start > 1
    assert len(api.searches) == 6


def test_a_server_that_stays_busy(api):
    api.failures = [(503, {})] * 6
    with pytest.raises(SourceError, match=r"can't answer \(HTTP 503\)"):
        ApiHttp(api.url, backoff_s=0.001).fetch(f"{api.url}/search", "POST", {})
    assert len(api.searches) == 6


@pytest.mark.parametrize("status", [401, 403])
def test_no_access(api, status):
    api.failures = [(status, {})]
    assert "refuses access" in refused(api.url)
    assert len(api.searches) == 1


def test_credentials_go_to_their_server_alone(api, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    url = api.url.replace("//", "//me:hush-hush@") + "/?code=s3cret"
    source = open_source({"stac": url, "limit": 201})
    assert len(list(source)) == 201
    basic = "Basic bWU6aHVzaC1odXNo"
    assert all(headers["Authorization"] == basic for headers in api.headers)
    assert all("code=s3cret" in path for path in api.paths)
    shown = source.describe() + "".join(map(repr, source))
    assert "hush" not in shown and "s3cret" not in shown

    write_json(tmp_path / "page.json", {"type": "FeatureCollection", "features": []})
    with range_server(tmp_path) as stranger:

        def elsewhere(page):
            page["links"] = [{"rel": "next", "href": f"{stranger.url}/page.json"}]

        api.edit = elsewhere
        assert len(list(open_source({"stac": url}))) == 200
        assert stranger.requests == 1
        assert "Authorization" not in stranger.headers[0] and stranger.queries == [""]

    api.forget()
    api.failures = [(400, {})]
    assert "s3cret" not in refused(url)
    gone = f"http://me:hush-hush@127.0.0.1:{free_port()}/?code=s3cret"
    message = refused(gone)
    assert "can't be read" in message and "hush" not in message and "s3cret" not in message
    with pytest.raises(SourceError, match=r"can't be reached: .*Connection refused"):
        ApiHttp(gone, backoff_s=0.001).fetch(gone)
    assert "Retrying" in caplog.text and "Authorization" in caplog.text
    for secret in ("hush", "s3cret", basic[6:]):
        assert secret not in caplog.text


def test_unknown_collection(api):
    assert refused(api.url, collections=["evn"]).endswith(
        "has no collection 'evn': did you mean 'even'?"
    )
    assert refused(api.url, collections=["zzz"]).endswith("it has even, odd")
    assert not api.searches


def test_sorting_needs_the_server(api, tmp_path):
    assert "leave source.sortby out" in refused(api.url, sortby="-id")
    path = write_json(tmp_path / "item.json", make_item("a", "x.tif"))
    assert "source.sortby goes with a STAC API" in refused(str(path), sortby="-id")


def test_bad_filter_is_told_before_any_request(api):
    assert "is no CQL2" in refused(api.url, filter={"op": "="})
    assert not api.paths


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("<html>hello</html>", "not valid JSON"),
        ({"hello": 1}, "no STAC item"),
        (
            {"type": "Collection", "id": "naip", "links": [{"rel": "items", "href": "items"}]},
            "a collection of a STAC API: give the API's root as source.stac, and 'naip'",
        ),
        (
            {"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": "?2"}]},
            "one page of a STAC API's answer",
        ),
        ({"type": "Catalog", "conformsTo": [], "links": []}, "without item search"),
    ],
)
def test_what_is_no_api(tmp_path, content, says):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "v1").write_text(text)
    with range_server(tmp_path) as server:
        assert says in refused(f"{server.url}/v1")


def test_collections_whose_items_only_an_api_has(tmp_path):
    """A catalog that can be browsed but not searched is no empty catalog."""
    links = [{"rel": "items", "href": "./naip/items"}]
    write_json(tmp_path / "naip.json", {"type": "Collection", "id": "naip", "links": links})
    links = [{"rel": "child", "href": "./naip.json"}]
    content = {"type": "Catalog", "id": "c", "conformsTo": [], "links": links}
    path = write_json(tmp_path / "catalog.json", content)
    assert "naip.json is a collection of a STAC API" in refused(str(path))


def test_static_catalog_without_a_suffix(tmp_path):
    write_json(tmp_path / "a.json", make_item("a", "https://pixels.invalid/a.tif"))
    links = [{"rel": "item", "href": "./a.json"}]
    write_json(tmp_path / "v1", {"type": "Catalog", "id": "c", "links": links})
    with range_server(tmp_path) as server:
        (scene,) = open_source({"stac": f"{server.url}/v1"})
    assert scene.id == "a"
