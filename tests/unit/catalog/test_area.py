from __future__ import annotations

import json
import warnings

import geopandas
import pytest
from shapely import MultiPolygon, Point, Polygon, box, get_num_coordinates
from shapely.geometry import mapping

from geosweep.catalog import SourceError, open_source
from geosweep.catalog.api import _area_parameters
from geosweep.catalog.area import area_of_interest, read_area

from .helpers import feature_collection, make_item, write_json

SQUARE = box(-111, 44, -110, 45)


def write_area(path, geometry=SQUARE, crs="EPSG:4326"):
    frame = geopandas.GeoDataFrame(geometry=[geometry], crs="EPSG:4326")
    frame = frame.to_crs(crs) if crs else frame.set_crs(None, allow_override=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GDAL's, that a file without CRS is of little use
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return str(path)


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.parquet"])
def test_every_form_gives_the_same_area(tmp_path, name):
    crs = "EPSG:4326" if name == "a.geojson" else "EPSG:3857"
    found = read_area(write_area(tmp_path / name, crs=crs))
    assert found.symmetric_difference(SQUARE).area < 1e-9


def test_geojson_objects():
    feature = {"type": "Feature", "geometry": mapping(SQUARE), "properties": {}}
    for content in (mapping(SQUARE), feature, feature_collection(feature)):
        assert read_area(json.loads(json.dumps(content))).equals(SQUARE)


def test_with_a_box_the_shared_ground_counts():
    shared = area_of_interest((-110.5, 44, -109, 46), mapping(SQUARE))
    assert shared is not None and shared.equals(box(-110.5, 44, -110, 45))
    with pytest.raises(SourceError, match="share no ground"):
        area_of_interest((0, 0, 1, 1), mapping(SQUARE))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: str(path / "none.gpkg"), r"none.gpkg does not exist"),
        (lambda path: str(write_json(path / "a.geojson", {"a": 1})), "is no file of geometries"),
        (lambda path: str(write_json(path / "a.parquet", {"a": 1})), "is no file of geometries"),
        (lambda path: write_area(path / "a.gpkg", Point(1, 1)), "holds no polygon"),
        (lambda path: write_area(path / "a.gpkg", crs=None), "has no CRS"),
        (
            lambda path: write_area(path / "a.geojson", box(500000, 0, 500100, 9)),
            "beyond the globe",
        ),
        (lambda path: {"type": "Polygon"}, "source.intersects is no file of geometries"),
    ],
)
def test_mistakes(tmp_path, make, says):
    with pytest.raises(SourceError, match=says) as caught:
        read_area(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_areas_across_the_antimeridian(tmp_path):
    split = MultiPolygon([box(179, 10, 180, 11), box(-180, 10, -179, 11)])
    assert read_area(write_area(tmp_path / "split.geojson", split)).equals(split)
    world = box(-180, -90, 180, 90)
    assert read_area(write_area(tmp_path / "world.gpkg", world)).equals(world)
    # In a projection there is no line to cut at.
    near = geopandas.GeoSeries([box(100_000, 1_100_000, 200_000, 1_200_000)], crs=32601)
    near.to_file(tmp_path / "utm.gpkg")
    area = read_area(str(tmp_path / "utm.gpkg"))
    assert area.is_valid and area.bounds[0::2] == (-180, 180)
    assert area.area == pytest.approx(0.9**2, rel=0.05)
    naive = Polygon([(179, 10), (-179, 10), (-179, 11), (179, 11)])
    with pytest.raises(SourceError, match=r"side from -179 to 179 degrees.*cut the polygon"):
        read_area(write_area(tmp_path / "naive.geojson", naive))


def test_what_an_api_is_asked():
    assert _area_parameters(None) == {}
    assert _area_parameters(SQUARE) == {"bbox": [-111, 44, -110, 45]}
    across = area_of_interest((179, -1, -179, 1), None)
    assert _area_parameters(across)["intersects"]["type"] == "MultiPolygon"
    round_one = Point(0, 0).buffer(1, quad_segs=500)
    assert get_num_coordinates(round_one) > 1000
    assert _area_parameters(round_one)["bbox"] == pytest.approx([-1, -1, 1, 1])


def test_files_of_items_know_area_filter_and_limit(tmp_path):
    items = [make_item(f"i{n}", "https://p.invalid/x.tif", west=-111 + n) for n in range(5)]
    for number, item in enumerate(items[:4]):
        item["properties"]["gsd"] = number
    path = str(write_json(tmp_path / "items.json", feature_collection(*items)))
    area = write_area(tmp_path / "area.gpkg", box(-110.5, 44, -108.5, 45))
    source = open_source({"stac": path, "intersects": area})
    assert [scene.id for scene in source] == ["i0", "i1", "i2"]
    assert source.outside_aoi == 2
    fine = {"op": "<", "args": [{"property": "gsd"}, 2]}
    for expression, expected in [
        (fine, ["i0", "i1"]),
        ({"op": "not", "args": [fine]}, ["i2", "i3"]),  # the last has no gsd
        ({"op": "isNull", "args": [{"property": "gsd"}]}, ["i4"]),
        ({"op": "or", "args": [fine, {"op": "=", "args": [{"property": "id"}, "i4"]}]},
         ["i0", "i1", "i4"]),
    ]:  # fmt: skip
        source = open_source({"stac": path, "filter": expression})
        assert [scene.id for scene in source] == expected
        assert source.filtered_out == 5 - len(expected)
    assert [scene.id for scene in open_source({"stac": path, "limit": 2})] == ["i0", "i1"]


@pytest.mark.parametrize(
    "expression",
    [
        {"op": "frobnicate", "args": [{"property": "id"}]},
        {"op": "<", "args": [{"property": "id"}, 3]},
    ],
)
def test_a_filter_that_cannot_be_worked_out(tmp_path, expression):
    path = str(write_json(tmp_path / "item.json", make_item("a", "x.tif")))
    with pytest.raises(SourceError, match="can't be applied to item a"):
        list(open_source({"stac": path, "filter": expression}))
