from __future__ import annotations

import os
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from geosweep.catalog import SourceError, open_source
from geosweep.catalog.header import outline
from geosweep.catalog.ids import SceneIds, safe_id
from tests.servers import range_server

from .helpers import make_raster


def test_header_becomes_a_scene(tmp_path):
    path = make_raster(tmp_path / "a b.tif", tags={"TIFFTAG_DATETIME": "2021:07:03 10:20:30"})
    (scene,) = open_source(path)
    assert scene.id == "a_b"
    assert scene.item_id == "a b"
    assert scene.href == str(path)
    assert scene.crs == "EPSG:32612"
    assert scene.transform == (10, 0, 500000, 0, -10, 4900000)
    assert scene.shape == (64, 48)
    assert scene.datetime == datetime(2021, 7, 3, 10, 20, 30, tzinfo=UTC)
    assert scene.checksum == f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    assert scene.error is None


@given(
    angle=st.floats(0, 360),
    pixel=st.floats(0.1, 100),
    x=st.floats(300000, 700000),
    y=st.floats(100000, 7000000),
)
def test_footprint_follows_the_transform(angle, pixel, x, y):
    affine = Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(pixel, -pixel)
    polygon = outline((500, 300), tuple(affine)[:6], "EPSG:32612")
    to_utm = Transformer.from_crs(4326, 32612, always_xy=True)
    back = shapely.transform(polygon, lambda c: np.column_stack(to_utm.transform(*c.T)))
    truth = shapely.Polygon(
        [affine @ corner for corner in ((0, 0), (300, 0), (300, 500), (0, 500))]
    )
    assert shapely.hausdorff_distance(back, truth) < 0.01 * pixel + 1e-3


def test_footprint_across_the_antimeridian():
    polygon = outline((100, 100), (1000, 0, 750000, 0, -1000, 100000), "EPSG:32660")
    assert polygon.area < 1.0
    assert {round(polygon.bounds[0]), round(polygon.bounds[2])} == {-180, 180}


def test_grid_from_0_to_360_is_brought_into_range():
    polygon = outline((180, 360), (1, 0, 0, 0, -1, 90), "EPSG:4326")
    assert polygon.bounds == (-180, -90, 180, 90)
    east = outline((10, 20), (1, 0, 170, 0, -1, 5), "EPSG:4326")
    assert east.area == pytest.approx(200)
    assert east.intersects(shapely.Point(-175, 0)) and east.intersects(shapely.Point(175, 0))


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3031", -90), ("EPSG:3413", 90)])
def test_grid_over_a_pole_covers_it(crs, pole):
    polygon = outline((600, 600), (10000, 0, -3e6, 0, -10000, 3e6), crs)
    assert all(polygon.intersects(shapely.Point(lon, pole * 0.99)) for lon in (-170, 10, 120))


def test_no_crs_gives_no_footprint(tmp_path):
    path = make_raster(tmp_path / "plain.png", driver="PNG", crs=None, transform=Affine.identity())
    (scene,) = open_source(path, bbox=(0, 0, 1, 1))
    assert (scene.crs, scene.transform, scene.footprint, scene.error) == (None, None, None, None)


def test_world_file_of_a_local_raster_is_seen(tmp_path):
    path = make_raster(tmp_path / "plain.png", driver="PNG", crs=None, transform=Affine.identity())
    path.with_suffix(".pgw").write_text("2\n0\n0\n-2\n1001\n1999\n")
    (scene,) = open_source(path)
    assert scene.transform == (2, 0, 1000, 0, -2, 2000)


def test_folder_is_searched_sorted_without_sidecars(tmp_path):
    for name in ("b.tif", "sub/a.TIF", ".hidden/x.tif", "c.png"):
        driver = "PNG" if name.endswith("png") else "GTiff"
        make_raster(tmp_path / name, driver=driver)
    for name in ("b.tif.aux.xml", "b.tfw", "notes.txt", ".d.tif", "b.tif.ovr"):
        (tmp_path / name).write_text("x")
    source = open_source(tmp_path)
    assert [scene.item_id for scene in source] == ["b", "c", "a"]
    assert source.total == 3


def test_empty_folder_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=f"{tmp_path} holds no raster"):
        open_source(tmp_path)


def test_bad_rasters_are_scenes_with_a_reason(tmp_path):
    good = make_raster(tmp_path / "good.tif", tiled=True, blockxsize=16, blockysize=16)
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "cut.tif").write_bytes(good.read_bytes()[:6])
    names = ["good", "text", "empty", "cut", "missing"]
    scenes = list(open_source([tmp_path / f"{name}.tif" for name in names]))
    assert [scene.id for scene in scenes] == names
    assert [scene.error is None for scene in scenes] == [True, False, False, False, False]
    for scene in scenes[1:]:
        assert scene.href in scene.error and "\n" not in scene.error
        assert scene.footprint is None
    assert "does not exist" in scenes[4].error
    assert "not in a raster format" in scenes[1].error


def test_one_basename_in_two_folders_is_two_scenes(tmp_path):
    paths = [make_raster(tmp_path / folder / "x.tif") for folder in "ab"]
    first = [scene.id for scene in open_source(paths)]
    assert len(set(first)) == 2
    assert all(name.startswith("x-") and len(name) == 10 for name in first)
    assert [scene.id for scene in open_source(paths[::-1])] == first[::-1]


def test_a_raster_named_twice_is_one_scene(tmp_path):
    path = make_raster(tmp_path / "x.tif")
    link = tmp_path / "link.tif"
    link.symlink_to(path)
    relative = os.path.relpath(path)
    source = open_source([path, relative, link, tmp_path])
    for _ in range(2):
        assert [scene.id for scene in source] == ["x"]
        assert source.duplicates == 4


def test_area_and_time(tmp_path):
    paths = [
        make_raster(
            tmp_path / f"{n}.tif",
            transform=Affine(10, 0, 500000 + 480 * n, 0, -10, 4900000),
            tags={"TIFFTAG_DATETIME": f"202{n}:01:01 00:00:00"},
        )
        for n in range(3)
    ]
    scenes = list(open_source(paths))
    west, south, east, north = scenes[1].footprint.bounds
    inner = (west + 0.002, south, east - 0.002, north)
    source = open_source(paths, bbox=inner)
    assert [scene.id for scene in source] == ["1"]
    assert source.outside_aoi == 2
    source = open_source({"rasters": [str(path) for path in paths], "datetime": "2021/.."})
    assert [scene.id for scene in source] == ["1", "2"]
    assert source.outside_datetime == 1


def test_remote_raster_takes_few_requests_and_hides_the_signature(tmp_path):
    make_raster(tmp_path / "far.tif", size=(512, 512), tiled=True)
    with range_server(tmp_path) as server:
        url = f"{server}/far.tif?sig=HUSHHUSH"
        (scene,) = open_source(url)
        assert (scene.id, scene.error, scene.shape) == ("far", None, (512, 512))
        assert scene.href == url
        assert server.requests <= 5
        assert server.sent < 200_000
        (gone,) = open_source(f"{server}/gone.tif?sig=HUSHHUSH")
        assert gone.error and "HUSH" not in gone.error and "/gone.tif" in gone.error
        resigned = next(iter(open_source(f"{server}/far.tif?sig=OTHEROTHER")))
        assert resigned.source_version == scene.source_version


def test_gdal_logs_hold_no_secret(tmp_path, caplog):
    (tmp_path / "text.tif").write_text("hello")
    caplog.set_level("DEBUG")
    with range_server(tmp_path) as server:
        (scene,) = open_source(f"{server}/text.tif?sig=HUSHHUSH")
    assert scene.error
    assert "text.tif" in caplog.text and "HUSH" not in caplog.text


def test_remote_raster_survives_a_busy_server(tmp_path):
    make_raster(tmp_path / "busy.tif")
    with range_server(tmp_path) as server:
        server.statuses = [503, 503]
        (scene,) = open_source(f"{server}/busy.tif")
        assert scene.error is None


@given(st.lists(st.text(max_size=300), unique=True, max_size=30))
def test_ids_are_unique_and_safe(names):
    ids = SceneIds(names)
    found = [ids(name, name) for name in names]
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert name == safe_id(name)
        assert 0 < len(name.encode()) < 150
        assert not name.startswith(".")


def test_crs_without_code_keeps_its_wkt(tmp_path):
    crs = rasterio.CRS.from_proj4("+proj=laea +lat_0=44.1 +lon_0=-110.3 +datum=WGS84 +units=m")
    path = make_raster(tmp_path / "odd.tif", crs=crs, transform=Affine(10, 0, 0, 0, -10, 0))
    (scene,) = open_source(path)
    assert rasterio.CRS.from_string(scene.crs) == crs
    assert scene.footprint.bounds[0] == pytest.approx(-110.3, abs=1e-6)
