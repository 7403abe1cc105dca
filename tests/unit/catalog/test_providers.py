"""Items as real providers lay them out, each over a small real COG."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Transformer

from geosweep.catalog import open_source
from tests.rasters import write_raster
from tests.servers import range_server

from .helpers import feature_collection, write_json

GRID = Affine(10, 0, 500_000, 0, -10, 4_900_000)
SHAPE = [40, 30]
COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def cog(folder, name, count=1, *, crs="EPSG:32612", transform=GRID, shape=SHAPE):
    folder.mkdir(parents=True, exist_ok=True)
    data = np.ones((count, *shape), np.uint8)
    return write_raster(folder / name, data, driver="COG", crs=crs, transform=transform)


def item(assets, *, version="1.0.0", geometry="grid", **properties):
    """A hand-written item: pystac would set right what providers get wrong."""
    x, y = Transformer.from_crs(32612, 4326, always_xy=True).transform(500_150, 4_899_800)
    box = shapely.box(x - 0.01, y - 0.01, x + 0.01, y + 0.01)
    made = {
        "stac_version": version,
        "type": "Feature",
        "id": "one",
        "geometry": shapely.geometry.mapping(box) if geometry == "grid" else geometry,
        "bbox": list(box.bounds),
        "properties": {"datetime": "2022-06-01T12:00:00Z", **properties},
        "links": [],
        "assets": assets,
    }
    return made if geometry is not None else {k: v for k, v in made.items() if k != "bbox"}


def scenes_of(path, content, **spec):
    return list(open_source({"stac": str(write_json(path / "items.json", content)), **spec}))


def test_landsat_collection_2(tmp_path):
    """USGS: https assets with an s3 alternate, proj:* on the item, extra 15 m panchromatic."""
    (folder := tmp_path / "sr").mkdir()
    fields = {"type": COG, "roles": ["data"]}
    assets = {
        "thumbnail": {"href": "t.jpeg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "index": {"href": "index.html", "type": "text/html", "roles": ["metadata"]},
        "mtl.json": {"href": "MTL.json", "type": "application/json", "roles": ["metadata"]},
    }
    for name in ("blue", "green", "red", "nir08"):
        path = cog(folder, f"{name}.TIF")
        assets[name] = fields | {
            "href": str(path),
            "alternate": {"s3": {"href": f"s3://usgs-landsat/{name}.TIF"}},
            "eo:bands": [{"name": f"B{name}", "common_name": name, "gsd": 30}],
        }
    one = item(
        assets,
        **{"proj:epsg": 32612, "proj:transform": list(GRID)[:6], "proj:shape": SHAPE},
    )
    (scene,) = scenes_of(tmp_path, one, bands=["red", "green", "blue"])
    assert (scene.error, scene.crs, scene.shape) == (None, "EPSG:32612", (40, 30))
    assert [part.href for part in scene.bands.values()] == [
        str(folder / f"{name}.TIF") for name in ("red", "green", "blue")
    ]


def test_open_imagery_of_a_satellite_company(tmp_path):
    """Maxar's open data: visual, pan and ms analytic, each with its own proj:*; relative hrefs."""
    cog(tmp_path / "ard" / "12", "visual.tif", 3)
    cog(tmp_path / "ard" / "12", "pan.tif", transform=GRID @ Affine.scale(0.5))
    own = {"proj:shape": SHAPE, "proj:transform": list(GRID)[:6]}
    assets = {
        "visual": {"href": "./12/visual.tif", "type": COG, "roles": ["visual"], **own},
        "pan_analytic": {"href": "./12/pan.tif", "type": COG, "roles": ["data"], **own},
        "data-mask": {"href": "./12/m.gpkg", "type": "application/geopackage+sqlite3"},
    }
    path = tmp_path / "ard"
    one = item(assets, **{"proj:epsg": 32612, "proj:geometry": None})
    (scene,) = scenes_of(path, one, asset="visual")
    assert scene.href == str(tmp_path / "ard" / "12" / "visual.tif")
    assert (scene.error, scene.shape) == (None, (40, 30))


def test_open_aerial_map(tmp_path):
    """One COG without a media type, no proj:* at all, a start and an end, and no datetime."""
    path = cog(tmp_path, "oam.tif", 3)
    one = item({"image": {"href": str(path)}}, datetime=None)
    one["properties"] |= {
        "start_datetime": "2023-02-07T00:00:00Z",
        "end_datetime": "2023-02-08T00:00:00Z",
    }
    (scene,) = scenes_of(tmp_path, one, datetime="2023-02-08/..")
    assert scene.error is None
    assert (scene.crs, scene.shape, scene.transform) == ("EPSG:32612", (40, 30), tuple(GRID)[:6])
    assert scene.datetime.isoformat() == "2023-02-07T00:00:00+00:00"
    assert not scenes_of(tmp_path, one, datetime="2024/..")


def test_an_older_catalog(tmp_path):
    """CBERS on AWS as STAC 0.9 had it: no type on assets, eo:epsg's successor, bands by position."""
    assets = {f"B{n}": {"href": str(cog(tmp_path, f"B{n}.tif")), "eo:bands": [n]} for n in range(3)}
    assets["thumbnail"] = {"href": "t.jpg", "type": "image/jpeg"}
    bands = [{"name": f"B{n}", "common_name": c} for n, c in enumerate(("blue", "green", "red"))]
    one = item(assets, version="0.9.0", **{"eo:bands": bands, "proj:epsg": "32612"})
    (scene,) = scenes_of(tmp_path, one, bands=["red", "green", "blue"])
    assert scene.error is None
    assert scene.asset == "B2"
    assert (scene.crs, scene.shape) == ("EPSG:32612", (40, 30))


def test_an_agency_with_a_projection_of_its_own(tmp_path):
    """proj:epsg null, as the extension wants it where there is no code, and WKT beside it."""
    crs = CRS.from_proj4("+proj=laea +lat_0=44 +lon_0=-111 +datum=WGS84")
    path = cog(tmp_path, "x.tif", 3, crs=crs.to_wkt(), transform=Affine(10, 0, 0, 0, -10, 0))
    places = {"proj:transform": [10, 0, 0, 0, -10, 0, 0, 0, 1], "proj:shape": SHAPE}
    asset = {"data": {"href": str(path), "type": COG}}
    for said in ({"proj:wkt2": crs.to_wkt()}, {"proj:projjson": crs.to_json_dict()}, {}):
        one = item(asset, **places, **said, **{"proj:epsg": None, "proj:code": None})
        (scene,) = scenes_of(tmp_path, one)
        assert scene.error is None
        assert CRS(scene.crs).equals(crs, ignore_axis_order=True) or "Lambert" in scene.crs
        assert scene.shape == (40, 30)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"proj:epsg": "unknown"},
        {"proj:code": "EPSG:999999"},
        {"proj:projjson": {"a": 1}},
        {"proj:epsg": 32612, "proj:transform": [10, 0, None, 0, -10, 4]},
        {"proj:epsg": 32612, "proj:shape": [40]},
    ],
)
def test_metadata_that_make_no_sense_are_looked_up_in_the_file(tmp_path, nonsense):
    path = cog(tmp_path, "x.tif", 3)
    places = {"proj:transform": list(GRID)[:6], "proj:shape": SHAPE}
    (scene,) = scenes_of(tmp_path, item({"data": {"href": str(path)}}, **places | nonsense))
    assert (scene.error, scene.crs, scene.shape) == (None, "EPSG:32612", (40, 30))


def test_null_geometry_is_the_pixels_or_the_bbox_or_unknown(tmp_path):
    path = cog(tmp_path, "x.tif", 3)
    known = {"proj:epsg": 32612, "proj:transform": list(GRID)[:6], "proj:shape": SHAPE}
    (full,) = scenes_of(tmp_path, item({"data": {"href": str(path)}}, geometry=None, **known))
    (bare,) = scenes_of(tmp_path, item({"data": {"href": str(path)}}, geometry=None))
    assert full.footprint.equals(bare.footprint)
    gone = item({"data": {"href": "gone.tif"}}, geometry=None)
    for bbox, bounds in {
        (1, 2, 3, 4): (1, 2, 3, 4),
        (1, 2, 0, 3, 4, 9): (1, 2, 3, 4),
        (179, 2, -179, 4): (-180, 2, 180, 4),
    }.items():
        (scene,) = scenes_of(tmp_path, gone | {"bbox": list(bbox)})
        assert scene.footprint.bounds == bounds
        assert "gone.tif does not exist" in scene.error
    for bbox in (None, [1, 2], ["a", 2, 3, 4], [1, 2, 3, None]):
        (scene,) = scenes_of(tmp_path, gone | {"bbox": bbox})
        assert scene.footprint is None


def test_naive_polygons_across_the_antimeridian_are_the_pixels(tmp_path):
    """Sentinel-2's tiles of zones 1 and 60, as many catalogs have them: from 179 to -179."""
    x, y = Transformer.from_crs(4326, 32660, always_xy=True).transform(180, -17)
    grid = Affine(10, 0, x - 150, 0, -10, y + 200)
    path = cog(tmp_path, "x.tif", 3, crs="EPSG:32760", transform=grid @ Affine.translation(0, -1e6))
    known = {"proj:epsg": 32660, "proj:transform": list(grid)[:6], "proj:shape": SHAPE}
    ring = [(179.998, -17.1), (-179.998, -17.1), (-179.998, -16.9), (179.998, -16.9)]
    naive = shapely.geometry.mapping(shapely.Polygon(ring))
    (scene,) = scenes_of(tmp_path, item({"d": {"href": str(path)}}, geometry=naive, **known))
    assert len(scene.footprint.geoms) == 2
    assert scene.footprint.area < 0.004**2
    # On our side an area of interest finds it, and one in between doesn't.
    spec = {"stac": str(tmp_path / "items.json")}
    for bbox, count in {
        (179.9999, -18, 180, -16): 1,
        (-180, -18, -179.9995, -16): 1,
        (179, -18, -179, -16): 1,
        (-170, -18, 170, -16): 0,
    }.items():
        assert len(list(open_source({**spec, "bbox": list(bbox)}))) == count


def test_an_asset_without_an_href_and_an_item_without_assets_fail_alone(tmp_path):
    good = item({"data": {"href": str(cog(tmp_path, "x.tif", 3)), "type": COG}})
    odd = item({"data": {"type": COG, "roles": ["data"]}}) | {"id": "odd"}
    bare = item({}) | {"id": "bare"}
    scenes = scenes_of(tmp_path, feature_collection(good, odd, bare))
    assert [scene.error is None for scene in scenes] == [True, False, False]
    assert "has no href" in scenes[1].error
    assert "no raster among its assets (none)" in scenes[2].error


def test_a_nested_catalog_of_relative_links_over_http(tmp_path):
    for year in ("2021", "2022"):
        cog(tmp_path / "stac" / year / "x" / "data", "image.tif", 3)
        one = item({"image": {"href": "./data/image.tif"}}) | {"id": f"x{year}"}
        one["links"] = [{"rel": "parent", "href": "../collection.json"}]
        write_json(tmp_path / "stac" / year / "x" / "item.json", one)
        child = {
            "type": "Collection",
            "id": year,
            "links": [{"rel": "item", "href": "x/item.json"}],
        }
        write_json(tmp_path / "stac" / year / "collection.json", child)
    links = [{"rel": "child", "href": f"./{year}/collection.json"} for year in ("2021", "2022")]
    write_json(tmp_path / "stac" / "catalog.json", {"type": "Catalog", "id": "c", "links": links})
    with range_server(tmp_path) as server:
        source = open_source(f"{server}/stac/catalog.json")
        first = list(source)
        assert [scene.error for scene in first] == [None, None]
        assert first[0].href == f"{server}/stac/2021/x/data/image.tif"
        assert list(source) == first


def test_two_zones_in_one_collection(tmp_path):
    """Each scene keeps its own CRS; footprints share one."""
    to = Transformer.from_crs(4326, 32613, always_xy=True)
    x, y = to.transform(-108.001, 44.2)
    other = Affine(10, 0, x, 0, -10, y)
    x, y = Transformer.from_crs(4326, 32612, always_xy=True).transform(-108.001, 44.2)
    here = Affine(10, 0, x, 0, -10, y)
    items = []
    for zone, grid in ((12, here), (13, other)):
        path = cog(tmp_path, f"z{zone}.tif", 3, crs=f"EPSG:326{zone}", transform=grid)
        items.append(item({"image": {"href": str(path)}}, geometry=None) | {"id": f"z{zone}"})
    one, two = scenes_of(tmp_path, feature_collection(*items))
    assert (one.crs, two.crs) == ("EPSG:32612", "EPSG:32613")
    shared = one.footprint.intersection(two.footprint).area
    assert shared > 0.8 * one.footprint.area
    assert json.loads(json.dumps(one.footprint.__geo_interface__))["type"] == "Polygon"
