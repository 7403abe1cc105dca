"""Shapes across the antimeridian and around the poles, with an equal-area projection as the judge."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from shapely.geometry import mapping

from geosweep.catalog.header import outline
from geosweep.catalog.lonlat import around, bounds, crosses, polygon_of, ring_polygon, within_world

BOX = [(179, 10), (-179, 10), (-179, 11), (179, 11)]
SPLIT = shapely.MultiPolygon([shapely.box(179, 10, 180, 11), shapely.box(-180, 10, -179, 11)])


def grid_at(crs, lon, lat, metres, pixels=100):
    """A grid of `pixels`² centred on a place."""
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    size = metres / pixels
    return Affine(size, 0, x - metres / 2, 0, -size, y + metres / 2)


def ground(shape):
    return sum(
        abs(Geod(ellps="WGS84").geometry_area_perimeter(part)[0])
        for part in shapely.get_parts(shape)
    )


@pytest.mark.parametrize(
    ("crs", "lon", "lat"),
    [
        ("EPSG:32601", -180, 52),
        ("EPSG:32660", 180, 52),
        ("EPSG:32760", 179.999, -17),
        ("EPSG:3413", 180, 72),
        ("EPSG:3031", 179.9, -71),
        ("EPSG:3995", -179.9, 71),
        ("EPSG:3857", 179.99, 0),
        ("EPSG:3832", 180, 1),
    ],
)
def test_an_outline_across_the_antimeridian_covers_its_ground_and_no_more(crs, lon, lat):
    found = outline((100, 100), tuple(grid_at(crs, lon, lat, 20_000))[:6], crs)
    assert found is not None
    assert found.is_valid
    assert (found.geom_type, len(found.geoms)) == ("MultiPolygon", 2)
    assert crosses(found)
    west, _, east, _ = bounds(found)
    assert 179 < west < 180 and -180 < east < -179
    assert ground(found) == pytest.approx(20_000**2, rel=0.04)  # the projections' own scale
    whole = around(found, lon)
    assert whole.geom_type == "Polygon"
    assert within_world(whole).symmetric_difference(found).area < 1e-9


@pytest.mark.parametrize(("crs", "lat"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
@pytest.mark.parametrize("aside", [0, 40_000])
def test_an_outline_around_a_pole_holds_the_pole(crs, lat, aside):
    grid = Affine.translation(aside, aside) @ grid_at(crs, 0, lat, 200_000)
    found = outline((100, 100), tuple(grid)[:6], crs)
    assert found is not None
    assert found.is_valid
    assert found.bounds[0::2] == (-180, 180)
    assert bounds(found) == found.bounds
    assert found.covers(shapely.points(np.linspace(-180, 180, 9), np.full(9, lat * 0.9999))).all()
    assert ground(found) == pytest.approx(200_000**2, rel=0.08)


@pytest.mark.parametrize("ring", [BOX, BOX[::-1], [(lon % 360, lat) for lon, lat in BOX]])
def test_a_jump_is_taken_the_short_way_whatever_the_winding(ring):
    naive = polygon_of(mapping(shapely.Polygon(ring)))
    assert naive is not None
    assert naive.equals(SPLIT)
    assert ring_polygon(*np.transpose(ring)).equals(SPLIT)


def test_geometries_as_items_have_them():
    whole_world = shapely.box(-180, -90, 180, 90)
    assert polygon_of(mapping(whole_world)).equals(whole_world)
    wide = shapely.box(-170, -60, 170, 60)
    assert polygon_of(mapping(SPLIT)).equals(SPLIT)
    assert bounds(SPLIT) == (179, 10, -179, 11)
    # Almost all round is as good as a jump: the pixels know.
    assert polygon_of(mapping(wide), lambda: wide) is wide
    high = {"type": "Polygon", "coordinates": [[(0, 0, 9), (1, 0, 9), (1, 1, 9), (0, 0, 9)]]}
    flat = polygon_of(high)
    assert flat is not None and not flat.has_z and flat.area == 0.5
    bow = {"type": "Polygon", "coordinates": [[(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)]]}
    assert polygon_of(bow).is_valid
    for nothing in (
        None,
        {},
        {"type": "Point", "coordinates": [0, 0]},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": "here"},
        {"type": "Polygon"},
        {"type": "Blob", "coordinates": [1]},
    ):
        assert polygon_of(nothing) is None
        assert polygon_of(nothing, lambda: wide) is wide
