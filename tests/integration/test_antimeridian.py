"""Scenes across ±180° give what they would give elsewhere, and outputs that are valid there."""

import json
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from pyproj import Geod, Transformer

from geosweep.catalog.validate import validate_output
from geosweep.pipeline import Job, plan, run
from geosweep.pipeline._view import read_view
from geosweep.pipeline.outputs import open_output
from tests.detectors import grey, paint_patches
from tests.rasters import write_raster
from tests.scenes import assert_sums

WIDTH, HEIGHT = 1000, 700
PATCHES = [
    [x, y, x + 60 + x % 37, y + 50 + y % 29]
    for x in range(20, 900, 120)
    for y in range(15, 600, 110)
]
PLACES = {
    "zone 60": ("EPSG:32660", 180.0, 52.0, 0.1),
    "zone 1": ("EPSG:32601", -180.0, 52.0, 0.1),
    "zone 1, south": ("EPSG:32701", -180.0, -17.0, 0.1),
    "degrees to 181": ("EPSG:4326", 180.0, 10.0, 1e-6),
    "degrees from -181": ("EPSG:4326", -180.0, 10.0, 1e-6),
    "mercator": ("EPSG:3857", 180.0, 10.0, 0.1),
    "polar stereographic": ("EPSG:3413", 180.0, 75.0, 0.1),
}


def centred(crs, lon, lat, size, *, dx=0, dy=0):
    """A grid whose middle lies on a place, moved by some pixels."""
    x, y = lon, lat
    if crs != "EPSG:4326":
        x, y = Transformer.from_crs(4326, crs, always_xy=True, force_over=True).transform(lon, lat)
    return Affine(size, 0, x, 0, -size, y) @ Affine.translation(dx - WIDTH / 2, dy - HEIGHT / 2)


def painted(path, crs, transform, seed=0, patches=PATCHES):
    image = paint_patches(grey(HEIGHT, WIDTH, seed), patches)
    return write_raster(
        path, image, driver="COG", compress="DEFLATE", blocksize=256, crs=crs, transform=transform
    )


def swept(folder, source, name="out", **blocks):
    job = Job.from_dict(
        {
            "source": source,
            "windows": {"size": 200, "overlap": 0.5},
            "detector": {"model": "tests.detectors:paint"},
            "output": {"path": str(folder / name), **blocks.pop("output", {})},
            **blocks,
        }
    )
    return job, run(job, engine="local", progress=False)


def boxes_of(frame):
    columns = ["xmin", "ymin", "xmax", "ymax"]
    return sorted(frame[columns].to_numpy().astype(int).tolist())


def assert_sound(folder, name="out"):
    storage, collection = open_output(folder / name)
    checked = validate_output(storage, collection, fetch_schemas=False)
    assert checked.ok, checked.problems


def ground(shape):
    geod = Geod(ellps="WGS84")
    return sum(abs(geod.geometry_area_perimeter(part)[0]) for part in shapely.get_parts(shape))


@pytest.mark.parametrize("place", PLACES)
def test_a_scene_across_the_line_has_the_rows_that_it_has_elsewhere(tmp_path, place):
    crs, lon, lat, size = PLACES[place]
    raster = painted(tmp_path / "a.tif", crs, centred(crs, lon, lat, size, dx=-30))
    _, result = swept(tmp_path, {"rasters": [str(raster)]})
    frame = result.to_geopandas()
    assert boxes_of(frame) == PATCHES
    assert_sums(result.counts)
    assert frame.geometry.is_valid.all()
    bounds = frame.geometry.bounds
    assert (bounds.minx >= -180).all() and (bounds.maxx <= 180).all()
    cut = frame.geometry.geom_type == "MultiPolygon"
    assert 0 < cut.sum() < 20
    parts = frame.geometry[cut].explode()
    assert (parts.bounds.maxx - parts.bounds.minx < 0.01).all()
    assert (shapely.is_ccw(shapely.get_exterior_ring(parts.to_numpy()))).all()
    # The area that is told is that of the polygon on the globe.
    areas = np.array([ground(shape) for shape in frame.geometry])
    assert frame.area_m2.to_numpy() == pytest.approx(areas, rel=0.01)
    # A hundredth of a pixel, all corners.
    there = Transformer.from_crs(4326, crs, always_xy=True, force_over=True)
    to_pixels = ~centred(crs, lon, lat, size, dx=-30)
    for row in frame.itertuples():
        corners = shapely.get_coordinates(row.geometry)
        turned = corners[:, 0] + 360 * np.round((lon - corners[:, 0]) / 360)
        x, y = to_pixels @ there.transform(turned, corners[:, 1])
        extent = (x.min(), y.min(), x.max(), y.max())
        assert extent == pytest.approx((row.xmin, row.ymin, row.xmax, row.ymax), abs=0.01)
    assert_sound(tmp_path)
    (file,) = (tmp_path / "out" / "data").glob("*.parquet")
    read = gpd.read_parquet(file)
    assert read.geometry.geom_equals(frame.geometry).all()
    geo = json.loads(pq.read_schema(file).metadata[b"geo"])["columns"]["geometry"]
    assert set(read.geometry.geom_type) <= set(geo["geometry_types"])
    (item,) = (tmp_path / "out" / "items").glob("*.json")
    west, _, east, _ = json.loads(item.read_text())["bbox"]
    assert west > 179.9 and east < -179.9


@pytest.mark.parametrize("target", ["EPSG:3857", "EPSG:32660", "EPSG:3832"])
def test_other_output_crs_hold_no_box_around_the_world(tmp_path, target):
    crs, lon, lat, size = PLACES["zone 1"]
    raster = painted(tmp_path / "a.tif", crs, centred(crs, lon, lat, size))
    _, result = swept(tmp_path, {"rasters": [str(raster)]}, output={"crs": target})
    frame = result.to_geopandas()
    assert boxes_of(frame) == PATCHES
    assert frame.geometry.is_valid.all()
    split = frame.geometry.geom_type == "MultiPolygon"
    assert split.any() == (target == "EPSG:3857")
    parts = frame.geometry.explode()
    assert (parts.bounds.maxx - parts.bounds.minx < 30).all()
    assert_sound(tmp_path)


def items_of(folder, rasters):
    """One item for each raster, with a day of its own."""
    features = []
    for number, raster in enumerate(rasters):
        features.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"s{number}",
                "geometry": None,
                "properties": {"datetime": datetime(2022, 1, 1 + number, tzinfo=UTC).isoformat()},
                "links": [],
                "assets": {"image": {"href": str(raster)}},
            }
        )
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


SHIFT = 360
"""Pixels by which a second scene lies beside the first; a multiple of the patches' pitch, so that both
show the same patches."""


def pair(folder, crs, lon, lat, size, **blocks):
    rasters = []
    for number in (0, 1):
        grid = centred(crs, lon, lat, size, dx=number * SHIFT)
        moved = [(x0 - number * SHIFT, y0, x1 - number * SHIFT, y1) for x0, y0, x1, y1 in LONG]
        seen = [
            (max(x0, 0), y0, min(x1, WIDTH), y1)
            for x0, y0, x1, y1 in moved
            if x1 > 0 and x0 < WIDTH
        ]
        rasters.append(painted(folder / f"{crs[5:]}-{number}.tif", crs, grid, number, seen))
    source = {"stac": items_of(folder, rasters), **blocks.pop("source", {})}
    return swept(folder, source, **blocks)


LONG = [(x, y, x + 70, y + 60) for x in range(20, 1300, 120) for y in range(15, 600, 110)]


@pytest.mark.parametrize("place", ["zone 1", "degrees from -181", "mercator", "elsewhere"])
def test_two_scenes_across_the_line_own_each_object_once(tmp_path, place):
    """And not one is lost, or found twice, for lying on a seam that isn't there."""
    crs, lon, lat, size = PLACES.get(place, ("EPSG:32601", -177.0, 52.0, 0.1))
    # The line runs through the middle of what both scenes show.
    job, result = pair(tmp_path, crs, lon, lat, size)
    frame = result.to_geopandas()
    offset = frame.scene_id.map({"s0": 0, "s1": SHIFT})
    found = [
        (x0 + int(dx), y0, x1 + int(dx), y1)
        for (x0, y0, x1, y1), dx in zip(
            frame[["xmin", "ymin", "xmax", "ymax"]].to_numpy().astype(int).tolist(),
            offset,
            strict=True,
        )
    ]
    assert sorted(found) == sorted(LONG)
    assert_sums(result.counts)
    # The later scene owns what both show, so windows of the other are not even read.
    assert 10 < result.counts["windows_skipped_owned"] < 40
    assert (frame[frame.scene_id == "s0"].xmax <= SHIFT + 100).all()
    assert plan(job, measure=False).windows_skipped_owned == result.counts["windows_skipped_owned"]
    assert_sound(tmp_path)


@pytest.mark.parametrize("place", ["zone 60", "degrees to 181", "mercator"])
def test_an_area_of_interest_across_the_line(tmp_path, place):
    crs, lon, lat, size = PLACES[place]
    grid = centred(crs, lon, lat, size)
    raster = painted(tmp_path / "a.tif", crs, grid)
    there = Transformer.from_crs(4326, crs, always_xy=True, force_over=True)
    middles = np.array([((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in PATCHES])
    lons = there.transform(*(grid @ middles.T), direction="INVERSE")[0]
    # Degrees to both sides of the line, at about 200 pixels from it.
    half = float(there.transform(*(grid @ (WIDTH / 2 + 200, 0)), direction="INVERSE")[0]) - lon
    for name, low, high in (("both", -half, half), ("east", 0, half), ("west", -half, 0)):
        bbox = [180 + low if low else -180, lat - 1, high - 180 if high else 180, lat + 1]
        source = {"rasters": [str(raster)], "bbox": bbox}
        _, result = swept(tmp_path, source, name)
        assert result.counts["windows_skipped_aoi"] > 0
        inside = (lons - lon >= low) & (lons - lon <= high)
        assert 0 < inside.sum() < len(PATCHES)
        assert boxes_of(result.to_geopandas()) == sorted(np.array(PATCHES)[inside].tolist())


@pytest.mark.parametrize("place", ["zone 1", "mercator"])
def test_map_and_picture_show_such_an_output_in_one_piece(tmp_path, place):
    crs, lon, lat, size = PLACES[place]
    raster = painted(tmp_path / "a.tif", crs, centred(crs, lon, lat, size, dx=-30))
    swept(tmp_path, {"rasters": [str(raster)]})
    view = read_view(tmp_path / "out", max_detections=1000)
    assert set(view.frame.geometry.geom_type) == {"Polygon"}
    left, bottom, right, top = view.frame.total_bounds
    assert max(right - left, top - bottom) < 250  # metres, stretched by the projection
    assert (shapely.get_num_coordinates(view.frame.geometry) == 5).all()
    picture = view.preview(view.scenes[0], 900)
    west, south, east, north = picture.bounds
    assert west < left and right < east and south < bottom and top < north
    # Each box lies on its own red patch, on both sides of the line.
    for box in view.frame.geometry:
        column = int((box.centroid.x - west) / (east - west) * picture.pixels.shape[1])
        row = int((north - box.centroid.y) / (north - south) * picture.pixels.shape[0])
        assert picture.pixels[row, column].tolist() == pytest.approx([255, 0, 0, 255], abs=3)
