"""Ownership: every ground point belongs to exactly one scene, and not to one that cuts it off."""

from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from geosweep.catalog import Scene
from geosweep.pipeline.ownership import Ownership
from geosweep.pipeline.region import Region
from geosweep.pipeline.windows import WindowGrid

CRS = "EPSG:32612"


def scene(name, x, y, size=1000, day=None, gsd=0.1):
    """A square scene whose top left corner is (x, y), in UTM metres."""
    transform = from_origin(x, y, gsd, gsd)
    side = size * gsd
    outline = shapely.box(x, y - side, x + side, y)
    footprint = shapely.geometry.shape(
        transform_geom(
            CRS, "EPSG:4326", shapely.geometry.mapping(shapely.segmentize(outline, side / 8))
        )
    )
    return Scene(
        id=name,
        href=f"{name}.tif",
        item_id=name,
        datetime=None if day is None else datetime(2022, 6, day, tzinfo=UTC),
        footprint=footprint,
        crs=CRS,
        transform=tuple(transform)[:6],
        shape=(size, size),
    )


def owners(scenes, x, y, overlap=20):
    """Names of the scenes that own a map point."""
    ownership = Ownership(scenes, overlap)
    found = []
    for one in scenes:
        column, row = ~from_origin(one.transform[2], one.transform[5], 0.1, 0.1) @ (x, y)
        if not (0 <= column < one.shape[1] and 0 <= row < one.shape[0]):
            continue
        _, own = Region(foreign=ownership.foreign(one)).contains(np.array([x]), np.array([y]), CRS)
        if own[0]:
            found.append(one.id)
    return found


def test_a_scene_by_itself_is_unlimited():
    lone = [scene("a", 500_000, 4_978_000), scene("b", 510_000, 4_978_000)]
    ownership = Ownership(lone, 20)
    assert [ownership.foreign(one) for one in lone] == [None, None]


def test_the_latest_scene_owns_the_overlap_but_for_its_border():
    old, new = scene("old", 500_000, 4_978_000, day=1), scene("new", 500_050, 4_978_000, day=2)
    scenes = [old, new]
    assert owners(scenes, 500_020, 4_977_950) == ["old"]
    assert owners(scenes, 500_075, 4_977_950) == ["new"]
    # Within 2 m (20 px) of the new scene's edge, the old one sees objects whole.
    assert owners(scenes, 500_051, 4_977_950) == ["old"]
    assert owners(scenes, 500_053, 4_977_950) == ["new"]
    # On the far side it is the old one that ends.
    assert owners(scenes, 500_099, 4_977_950) == ["new"]


def test_undated_scenes_rank_after_dated_ones_and_then_by_name():
    scenes = [scene("b", 500_000, 4_978_000), scene("a", 500_050, 4_978_000)]
    assert owners(scenes, 500_075, 4_977_950) == ["a"]
    dated = [scene("b", 500_000, 4_978_000, day=1), scenes[1]]
    assert owners(dated, 500_075, 4_977_950) == ["b"]


def test_undated_scenes_of_the_same_ground_are_both_kept_whole(caplog):
    scenes = [
        scene("a", 500_000, 4_978_000),
        scene("b", 500_000, 4_978_000),
        scene("part", 500_020, 4_977_980, size=500),
    ]
    ownership = Ownership(scenes, 20)
    assert [ownership.foreign(one) for one in scenes] == [None, None, None]
    assert caplog.text.count("show the same ground and have no dates") == 1


def test_identical_scenes_belong_to_the_first_in_rank():
    scenes = [scene("a", 500_000, 4_978_000, day=3), scene("b", 500_000, 4_978_000, day=3)]
    for x, y in ((500_050, 4_977_950), (500_000.5, 4_977_999.5)):
        assert owners(scenes, x, y) == ["a"]
    foreign = Ownership(scenes, 20).foreign(scenes[1])
    grid = WindowGrid.cover(1000, 1000, 400, 0.05)
    plan = Region(foreign=foreign).plan(
        grid, from_origin(500_000, 4_978_000, 0.1, 0.1), CRS, (1, 1)
    )
    assert plan.count < grid.count
    assert plan.count + plan.owned_elsewhere == grid.count


def test_failed_scenes_own_nothing():
    from dataclasses import replace

    bad = replace(scene("bad", 500_000, 4_978_000, day=9), error="gone")
    good = scene("good", 500_000, 4_978_000, day=1)
    assert Ownership([bad, good], 20).foreign(good) is None


def test_a_plan_gives_the_same_owners_as_its_scenes():
    from dataclasses import replace

    from geosweep.catalog.planfile import PlanFile

    scenes = [
        scene(f"s{x}{y}", 500_000 + 80 * x, 4_978_000 - 80 * y, day=(x * y) % 3 + 1)
        for x in range(3)
        for y in range(3)
    ]
    scenes += [
        replace(scenes[4], id="again", updated="2024"),
        replace(scenes[4], id="later", datetime=datetime(2030, 1, 1, 0, 0, 0, 7, UTC)),
        replace(scenes[0], id="gone", error="gone"),
        replace(scenes[1], id="gridless", transform=None),
        replace(scenes[2], id="undated", datetime=None, crs="+proj=utm +zone=12"),
        replace(scenes[3], id="nowhere", footprint=None),
    ]
    for held, retained in ((scenes[:8], scenes[8:]), (scenes[:9], [])):
        plan = PlanFile.freeze(None, held, key="k", retained=retained)
        by_plan, by_scenes = Ownership(plan, 20), Ownership([*held, *retained], 20)
        for one in scenes:
            assert by_plan.foreign(one) == by_scenes.foreign(one)
        assert any(by_plan.foreign(one) for one in scenes)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(1, 3)),
        min_size=2,
        max_size=5,
    ),
    st.integers(0, 2**32 - 1),
)
def test_every_point_has_exactly_one_owner(places, seed):
    scenes = [
        scene(f"s{i}", 500_000 + dx / 10, 4_978_000 - dy / 10, day=day)
        for i, (dx, dy, day) in enumerate(places)
    ]
    ownership = Ownership(scenes, 20)
    foreign = [ownership.foreign(one) for one in scenes]
    rng = np.random.default_rng(seed)
    x, y = 500_000 + rng.uniform(0, 190, 300), 4_978_000 - rng.uniform(0, 190, 300)
    total, held = np.zeros(300, int), np.zeros(300, bool)
    for one, part in zip(scenes, foreign, strict=True):
        left, top = one.transform[2], one.transform[5]
        inside = (x > left) & (x < left + 100) & (y < top) & (y > top - 100)
        _, own = Region(foreign=part).contains(x, y, CRS)
        total += inside & own
        held |= inside
    # A hair's breadth along an outline may belong to two: the footprints are polygons in degrees.
    assert (total[held] >= 1).mean() >= 0.99
    assert (total[held] <= 1).mean() >= 0.99


@pytest.mark.parametrize("bbox_share", [0.25, 0.6])
def test_an_area_of_interest_limits_windows_and_points(bbox_share):
    one = scene("a", 500_000, 4_978_000)
    west, south, east, north = one.footprint.bounds
    aoi = shapely.box(west, south, west + bbox_share * (east - west), north)
    grid = WindowGrid.cover(1000, 1000, 200, 0.0)
    region = Region(aoi=aoi)
    plan = region.plan(grid, from_origin(500_000, 4_978_000, 0.1, 0.1), CRS, (1, 1))
    columns = np.flatnonzero(plan.wanted.any(axis=0))
    assert columns[-1] in (int(bbox_share * 5), int(bbox_share * 5 + 0.1))
    assert plan.count + plan.outside_aoi == grid.count
    x = np.array([500_000 + 100 * bbox_share - 2, 500_000 + 100 * bbox_share + 2])
    inside, _ = region.contains(x, np.full(2, 4_977_950.0), CRS)
    assert inside.tolist() == [True, False]


def test_the_order_in_which_a_source_lists_its_scenes_decides_nothing():
    scenes = [
        scene(f"s{x}{y}", 500_000 + 71 * x, 4_978_000 - 67 * y, day=(x * y) % 3 + 1)
        for x in range(3)
        for y in range(3)
    ]
    forwards, backwards = Ownership(scenes, 20), Ownership(scenes[::-1], 20)
    for one in scenes:
        assert (
            Region(foreign=forwards.foreign(one)).version
            == Region(foreign=backwards.foreign(one)).version
        )


def test_scenes_worked_out_together_have_the_same_limits():
    from dataclasses import replace

    scenes = [
        scene(f"s{x}{y}", 500_000 + 40 * x, 4_978_000 - 40 * y, day=(x * y) % 3 + 1)
        for x in range(6)
        for y in range(6)
    ]
    scenes += [
        scene("alone", 510_000, 4_978_000),
        replace(scenes[0], id="nowhere", footprint=None),
        replace(
            scenes[1], id="other_crs", crs="EPSG:4326", transform=(1e-6, 0, -111, 0, -1e-6, 45)
        ),
    ]
    together = list(Ownership(scenes, 20).limits(scenes))
    assert [one.id for one, _ in together] == [one.id for one in scenes]
    for one, foreign in together:
        assert Region(foreign=foreign).version == (
            Region(foreign=Ownership(scenes, 20).foreign(one)).version
        )
    assert sum(foreign is None for _, foreign in together) == 2
