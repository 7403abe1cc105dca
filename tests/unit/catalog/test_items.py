from __future__ import annotations

import json
import shutil

import pystac
import pytest
import rustac
from pyproj import CRS

from geosweep.catalog import SourceError, open_source
from tests.servers import range_server

from .helpers import WHEN, feature_collection, make_item, make_raster, write_json


@pytest.fixture
def raster(tmp_path):
    return make_raster(tmp_path / "pixels" / "x.tif")


def test_single_item_with_relative_href(tmp_path, raster):
    path = write_json(tmp_path / "item.json", make_item("one", "./pixels/x.tif"))
    (scene,) = open_source(path)
    assert (scene.id, scene.item_id, scene.collection, scene.asset) == ("one", "one", "c", "image")
    assert scene.href == str(raster)
    assert (scene.crs, scene.shape) == ("EPSG:32612", (64, 48))
    assert scene.transform == (10, 0, 500000, 0, -10, 4900000)
    assert scene.datetime == WHEN
    assert scene.footprint.bounds == (-111, 44, -110, 45)
    assert scene.checksum == f"{raster.stat().st_size}-{raster.stat().st_mtime_ns}"


def _as_collection(path, items):
    return write_json(path / "items.json", feature_collection(*items))


def _as_lines(path, items):
    (path / "items.ndjson").write_text("\n".join(map(json.dumps, items)) + "\n\n")
    return path / "items.ndjson"


def _as_parquet(path, items):
    rustac.write_sync(str(path / "items.parquet"), items)
    return path / "items.parquet"


def _as_catalog(path, items):
    catalog = pystac.Catalog("root", "test")
    child = pystac.Catalog("child", "test")
    catalog.add_child(child)
    for item in items:
        child.add_item(pystac.Item.from_dict(json.loads(json.dumps(item)), preserve_dict=False))
    catalog.normalize_hrefs(str(path / "static"))
    catalog.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return path / "static" / "catalog.json"


FORMS = [_as_collection, _as_lines, _as_parquet, _as_catalog]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_scenes(tmp_path, raster, form):
    items = [
        make_item(f"i{n}", str(raster), west=-111 + n, updated="2023-01-01T00:00:00Z")
        for n in range(3)
    ]
    expected = list(open_source(_as_collection(tmp_path, items)))
    source = open_source(form(tmp_path, items))
    found = list(source)
    assert sorted(found, key=lambda s: s.id) == expected
    assert source.total == 3
    assert list(source) == found
    narrow = open_source(form(tmp_path, items), bbox=(-110.9, 44.1, -110, 44.2))
    assert [scene.id for scene in narrow] == ["i0"]
    assert narrow.outside_aoi == 2


@pytest.mark.parametrize("form", FORMS)
def test_every_form_over_http(tmp_path, raster, form):
    items = [make_item(f"i{n}", "https://example.invalid/x.tif", west=-111 + n) for n in range(2)]
    path = form(tmp_path, items)
    with range_server(tmp_path) as server:
        server.statuses = [503]
        url = f"{server}/{path.relative_to(tmp_path)}?token=HUSHHUSH"
        source = open_source(url)
        assert [scene.href for scene in source] == ["https://example.invalid/x.tif"] * 2
        assert "HUSH" not in source.describe()
        with pytest.raises(SourceError, match="does not exist") as caught:
            list(open_source(url.replace("?", "gone.json?")))
        assert "HUSH" not in str(caught.value)


def test_a_remote_catalog_is_walked_once(tmp_path, raster):
    items = [make_item(f"i{n}", "https://example.invalid/x.tif") for n in range(5)]
    path = _as_catalog(tmp_path, items)
    with range_server(tmp_path) as server:
        source = open_source(f"{server}/{path.relative_to(tmp_path)}")
        first = list(source)
        assert server.requests == 7  # two catalogs, five items
        assert list(source) == first
        assert server.requests == 7


def test_relative_hrefs_over_http(tmp_path, raster):
    item = make_item("one", "../pixels/x.tif")
    for key in ("proj:code", "proj:transform", "proj:shape"):
        del item["properties"][key]
    (tmp_path / "stac").mkdir()
    write_json(tmp_path / "stac" / "item.json", item)
    with range_server(tmp_path) as server:
        (scene,) = open_source(f"{server}/stac/item.json")
        assert scene.href == f"{server}/pixels/x.tif"
        assert (scene.error, scene.shape, scene.crs) == (None, (64, 48), "EPSG:32612")


def test_nothing_is_opened_when_the_item_says_all(tmp_path, raster):
    with range_server(tmp_path) as server:
        item = make_item("one", f"{server}/pixels/x.tif", updated="2022-01-01T00:00:00Z")
        assert next(iter(open_source(write_json(tmp_path / "i.json", item)))).error is None
        assert server.requests == 0


@pytest.mark.parametrize(
    "proj",
    [
        {"proj:epsg": 32612},
        {"proj:code": None, "proj:wkt2": CRS(32612).to_wkt()},
        {"proj:projjson": CRS(32612).to_json_dict()},
    ],
)
def test_every_way_to_write_a_crs(tmp_path, raster, proj):
    item = make_item("one", str(raster))
    del item["properties"]["proj:code"]
    item["properties"] |= proj
    (scene,) = open_source(write_json(tmp_path / "i.json", item))
    assert CRS(scene.crs) == CRS(32612)


def test_the_asset_speaks_before_the_item(tmp_path):
    own = {
        "proj:shape": [10, 20],
        "proj:transform": [1, 0, 5, 0, -1, 9, 0, 0, 1],
        "updated": "2024-02-02T00:00:00Z",
        "file:checksum": "1220ab",
    }
    item = make_item("one", "https://example.invalid/x.tif", **own)
    item["properties"]["updated"] = "2020-01-01T00:00:00Z"
    (scene,) = open_source(write_json(tmp_path / "i.json", item))
    assert scene.shape == (10, 20)
    assert scene.transform == (1, 0, 5, 0, -1, 9)
    assert (scene.updated, scene.checksum) == ("2024-02-02T00:00:00Z", "1220ab")


def _with_assets(**assets):
    item = make_item("one", "x.tif")
    item["assets"] = assets
    return item


TIFF = {"href": "https://example.invalid/x.tif", "type": "image/tiff; application=geotiff"}


def test_the_only_raster_is_chosen(tmp_path):
    item = _with_assets(
        thumb={"href": "t.png", "type": "image/png", "roles": ["thumbnail"]},
        meta={"href": "m.xml", "type": "application/xml", "roles": ["metadata"]},
        band={**TIFF, "roles": ["data"]},
        mask=TIFF,
    )
    (scene,) = open_source(write_json(tmp_path / "i.json", item))
    assert scene.asset == "band"


def test_several_rasters_need_a_choice(tmp_path):
    path = write_json(tmp_path / "i.json", _with_assets(red=TIFF, nir=TIFF))
    with pytest.raises(SourceError, match=r"red, nir.*source\.asset"):
        list(open_source(path))
    (scene,) = open_source({"stac": str(path), "asset": "nir"})
    assert scene.asset == "nir"
    with pytest.raises(SourceError, match="no asset 'blue', it has red, nir"):
        list(open_source({"stac": str(path), "asset": "blue"}))


def test_a_later_item_without_the_asset_fails_alone(tmp_path, raster):
    items = [make_item("good", str(raster)), _with_assets(other=TIFF) | {"id": "odd"}]
    path = _as_collection(tmp_path, items)
    good, odd = open_source({"stac": str(path), "asset": "image"})
    assert good.error is None
    assert odd.id == "odd" and "has no asset 'image'" in odd.error


def test_missing_pixels_are_a_failed_scene(tmp_path, raster):
    bare = make_item("bare", "gone.tif")
    del bare["properties"]["proj:shape"]
    items = [make_item("full", "gone.tif"), bare, make_item("good", str(raster))]
    scenes = list(open_source(_as_collection(tmp_path, items)))
    assert [scene.error is None for scene in scenes] == [False, False, True]
    assert all("gone.tif does not exist" in scene.error for scene in scenes[:2])
    assert scenes[0].footprint is not None


def test_repeated_and_colliding_ids(tmp_path, raster):
    names = [("c", "x/1"), ("c", "x/1"), ("d", "x/1"), ("c", "x:1"), ("c", "y")]
    items = [make_item(item_id, str(raster), collection=name) for name, item_id in names]
    source = open_source(_as_collection(tmp_path, items))
    scenes = list(source)
    assert source.duplicates == 1
    assert [scene.item_id for scene in scenes] == ["x/1", "x/1", "x:1", "y"]
    assert len({scene.id for scene in scenes}) == 4
    assert all(scene.id.startswith("x_1-") for scene in scenes[:3])
    assert scenes[3].id == "y"
    turned = open_source(_as_collection(tmp_path, items[::-1]))
    assert {scene.id for scene in turned} == {scene.id for scene in scenes}


def test_collections_and_time(tmp_path, raster):
    items = [make_item("a", str(raster)), make_item("b", str(raster), collection="d")]
    items[1]["properties"] |= {
        "datetime": None,
        "start_datetime": "2021-01-01T00:00:00Z",
        "end_datetime": "2021-12-31T00:00:00Z",
    }
    path = str(_as_collection(tmp_path, items))
    only = open_source({"stac": path, "collections": "d"})
    assert [scene.id for scene in only] == ["b"]
    assert only.other_collection == 1
    for interval, expected in {"2021-06-01": ["b"], "2022": ["a"], "2021/..": ["a", "b"]}.items():
        source = open_source({"stac": path, "datetime": interval})
        assert [scene.id for scene in source] == expected
        assert source.outside_datetime == 2 - len(expected)


def test_null_geometry_takes_the_grid(tmp_path, raster):
    item = make_item("one", str(raster)) | {"geometry": None}
    del item["bbox"]
    (scene,) = open_source(write_json(tmp_path / "i.json", item))
    (plain,) = open_source(raster)
    assert scene.footprint.equals(plain.footprint)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.json", "hello world", "not valid JSON"),
        ("t.json", '{"type": "Feature", ', "not valid JSON"),
        ("t.json", "", "is empty"),
        ("t.json", "[1, 2]", "no STAC object"),
        ("t.json", '{"type": "Point", "coordinates": [0, 0]}', "no STAC item"),
        ("t.json", '{"type": "FeatureCollection", "features": [{"type": "Feature"}]}', "feature 0"),
        ("t.json", '{"type": "Catalog", "id": "x", "conformsTo": [], "links": []}', "STAC API"),
        ("t.ndjson", '{"id": 1}\n', "line 1"),
        ("t.parquet", "hello", "not a stac-geoparquet file"),
        ("t.txt", "plain text", "not valid JSON"),
    ],
)
def test_what_is_no_stac(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=says) as caught:
        list(open_source({"stac": str(tmp_path / name)}))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone.json", "gone.parquet", "gone.ndjson"])
def test_missing_file(tmp_path, name):
    with pytest.raises(SourceError, match=f"{name} does not exist"):
        list(open_source(tmp_path / name))


def test_folder_given_as_stac(tmp_path, raster):
    path = _as_catalog(tmp_path, [make_item("one", str(raster))])
    assert [scene.id for scene in open_source({"stac": str(path.parent)})] == ["one"]
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    with pytest.raises(SourceError, match=r"folder without catalog\.json"):
        open_source({"stac": str(path.parent)})


def test_a_catalog_that_links_to_itself_ends(tmp_path, raster):
    path = _as_catalog(tmp_path, [make_item("one", str(raster))])
    child = path.parent / "child" / "catalog.json"
    document = json.loads(child.read_text())
    document["links"] += [
        {"rel": "child", "href": "../catalog.json"},
        {"rel": "child", "href": "./catalog.json"},
    ]
    child.write_text(json.dumps(document))
    assert [scene.id for scene in open_source(path)] == ["one"]
