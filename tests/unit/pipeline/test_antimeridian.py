"""The pieces that scenes across ±180° and around poles are made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Transformer

from geosweep.catalog.header import outline
from geosweep.catalog.lonlat import around
from geosweep.pipeline._antimeridian import frame_longitude, shrunk, torn
from geosweep.pipeline._geo import box_areas_m2, ground_sample_distance, pixel_area_m2
from geosweep.pipeline._outlines import outlines_of
from geosweep.pipeline.geofile import geo_metadata
from geosweep.pipeline.ground import ground_bounds
from geosweep.pipeline.region import Region
from geosweep.pipeline.scene_reader import SceneHeader
from geosweep.pipeline.windows import WindowGrid

SIZE = 1000
POLE = Affine(100, 0, -50_000, 0, -100, 50_000)


def test_a_footprint_shrinks_from_its_border_and_not_from_the_line():
    footprint = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -178, 1)])
    inner = shrunk(footprint, 0.1)
    east = around(inner, 180)
    assert east.geom_type == "Polygon"
    assert east.bounds == pytest.approx((179.1, 0.1, 181.9, 0.9), abs=1e-4)
    assert east.area == pytest.approx(2.8 * 0.8, rel=1e-3)
    assert inner.bounds[0::2] == (-180, 180)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_a_footprint_around_a_pole_keeps_the_pole(crs, pole):
    footprint = outline((SIZE, SIZE), tuple(POLE)[:6], crs)
    inner = shrunk(footprint, 10_000 / 111_320)
    assert inner.is_valid
    assert inner.covers(shapely.points(np.linspace(-180, 180, 7), np.full(7, pole * 0.999))).all()
    # Ten kilometres from each side of what is 103 km wide on the ground.
    flat = Transformer.from_crs(4326, f"+proj=aeqd +lat_0={pole} +datum=WGS84", always_xy=True)
    x, y = flat.transform(*shapely.get_coordinates(inner).T)
    assert np.hypot(x, y).max() == pytest.approx((103_000 / 2 - 10_000) * 2**0.5, rel=0.02)


def test_windows_around_a_pole():
    grid = WindowGrid.cover(SIZE, SIZE, 200, 0.0)
    assert frame_longitude(POLE, (SIZE, SIZE), "EPSG:3413") is not None
    cap = shapely.box(-180, 89.9, 180, 90)  # 11 km around: the middle windows alone
    plan = Region(aoi=cap).plan(grid, POLE, "EPSG:3413", (1, 1))
    assert plan.wanted.sum() == 5  # of the five by five, those that the circle touches
    assert plan.wanted[2, 1:4].all() and plan.wanted[1:4, 2].all()
    owned = Region(foreign=shapely.box(-180, 89.5, 180, 90)).plan(grid, POLE, "EPSG:3413", (1, 1))
    # 55 km around: all but the corners' windows lie whole in it, and no cut runs through one.
    assert owned.owned_elsewhere >= 13
    assert not owned.wanted[1:4, 1:4].any()


def test_a_box_around_a_pole_and_its_area():
    box = np.array([[450, 450, 560, 540]], np.float32)
    outlines = outlines_of(box, POLE, "EPSG:3413", "EPSG:4326")
    polygon = shapely.from_wkb(outlines.wkb(np.arange(1))[0].as_py())
    assert polygon.is_valid
    assert polygon.covers(shapely.Point(77, 89.999))
    assert polygon.bounds[3] == 90
    scale = 0.9698**2  # of the projection at the pole
    assert box_areas_m2(box, POLE, (SIZE, SIZE), "EPSG:3413") == pytest.approx(
        110 * 90 * 1e4 / scale, rel=0.002
    )


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:4326", "EPSG:3857"])
def test_a_pixel_on_the_line_is_as_large_as_elsewhere(crs):
    size = 1e-6 if crs == "EPSG:4326" else 0.1
    there = Transformer.from_crs(4326, crs, always_xy=True, force_over=True)
    x, y = there.transform(-180, 52)
    here = Affine(size, 0, x - size * 500, 0, -size, y + size * 500)
    aside = here @ Affine.translation(2000, 0)
    assert pixel_area_m2(here, (1000, 1000), crs) == pytest.approx(
        pixel_area_m2(aside, (1000, 1000), crs), rel=1e-3
    )
    assert ground_sample_distance(here, (1000, 1000), crs) < 0.12


def test_crops_of_another_raster_come_from_one_place():
    x, y = Transformer.from_crs(4326, 32601, always_xy=True, force_over=True).transform(-180, 10)
    swept = Affine(100, 0, x - 5000, 0, -100, y + 5000)
    header = SceneHeader(
        WindowGrid.cover(100, 100, 100, 0),
        (1, 1),
        None,
        swept,
        "EPSG:32601",
        (100, 100),
        0,
        0,
    )
    box = np.array([[40, 40, 60, 60]])  # across the line
    step = 0.001
    turned = Affine(step, 0, 179, 0, -step, 11)
    ((left, top, right, bottom),) = ground_bounds(box, header, turned, "EPSG:4326", 180.0)
    assert (left + right) / 2 == pytest.approx(1000, abs=2)
    assert (top + bottom) / 2 == pytest.approx(1000, abs=2)
    assert 15 < right - left < 25
    # A raster that ends at the line has the half of it.
    world = Affine(step, 0, -180, 0, -step, 90)
    ((left, _, right, _),) = ground_bounds(box, header, world, "EPSG:4326", 0.0)
    assert right - left < 25
    assert left < 0 < right or left < 360_000 < right


def test_files_say_that_boxes_may_be_in_two_parts_only_where_they_may():
    def kinds(bounds, crs):
        geo = json.loads(geo_metadata(bounds, crs)[b"geo"])
        return geo["columns"]["geometry"]["geometry_types"]

    assert kinds((-180, 0, 180, 1), "EPSG:4326") == ["MultiPolygon", "Polygon"]
    assert kinds((170, 0, 179, 1), "EPSG:4326") == ["Polygon"]
    assert kinds((-2e7, 0, 2e7, 1), "EPSG:3857") == ["MultiPolygon", "Polygon"]
    assert kinds((0, 0, 1e6, 1), "EPSG:3857") == ["Polygon"]
    assert kinds((0, 0, 1e9, 1), None) == ["Polygon"]
    assert kinds(None, "EPSG:4326") == []
    assert not torn(np.zeros((0, 4)), CRS(4326)).any()
