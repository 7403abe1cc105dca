"""Windows told by boxes around edges are those that GEOS tells."""

from datetime import UTC, datetime

import numpy as np
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from geosweep.catalog import Scene
from geosweep.catalog.lonlat import ring_polygon
from geosweep.pipeline import region
from geosweep.pipeline._antimeridian import frame_longitude
from geosweep.pipeline._covering import covered_surely
from geosweep.pipeline.ownership import Ownership
from geosweep.pipeline.region import Region
from geosweep.pipeline.windows import WindowGrid

MAPS = {
    "EPSG:32612": (500_000.0, 4_978_000.0),
    "EPSG:3857": (-12_350_000.0, 5_600_000.0),
    "EPSG:32760": (788_000.0, 7_000_000.0),  # 12 km from the antimeridian
    "EPSG:4326": (-111.0, 45.0),
}


def scene(name, crs, gsd, at, turned=0.0, size=(3000, 2600), day=1):
    """A scene whose top left corner lies `at` pixels from the map's own place."""
    x, y = MAPS[crs]
    unit = gsd / 111_000 if crs == "EPSG:4326" else gsd
    transform = (
        Affine.translation(x + at[0] * unit, y - at[1] * unit)
        @ Affine.rotation(turned)
        @ Affine.scale(unit, -unit)
    )
    corners = [(0, 0), (size[0], 0), size, (0, size[1])]
    ring = np.array([transform @ corner for corner in corners])
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*ring.T)
    return Scene(
        id=name,
        href=f"{name}.tif",
        item_id=name,
        datetime=datetime(2022, 6, day, tzinfo=UTC),
        footprint=ring_polygon(lon, lat),
        crs=crs,
        transform=tuple(transform)[:6],
        shape=size[::-1],
    )


def by_geos(foreign, grid, transform, crs):
    lon = frame_longitude(transform, (grid.width, grid.height), crs)
    pixels = region._to_pixels(foreign, ~transform, crs, lon)
    pixels = pixels.buffer(0.01, join_style="mitre").buffer(-0.51, join_style="mitre")
    return grid.covered(pixels)


# Edges, or borders of 20 px, within a pixel of where windows begin and end; or anywhere.
close = st.tuples(st.integers(-14, 14), st.sampled_from([-20, 0, 20]), st.floats(-1, 1))
offset = close.map(lambda parts: 190 * parts[0] + parts[1] + parts[2]) | st.floats(-2900, 2900)
others = st.lists(
    st.tuples(offset, offset, st.sampled_from([0.0, 0.0, 1.5, 30.0]), st.integers(1, 3)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=120)
@given(
    others,
    st.sampled_from([*MAPS]),
    st.sampled_from([0.1, 1.0, 10.0, 30.0]),
    st.sampled_from([0.0, 0.0, 20.0]),
    st.sampled_from([(400, 0.05), (256, 0.0), (700, 0.3)]),
)
def test_windows_that_others_own_are_those_that_geos_finds(places, crs, gsd, turned, window):
    own = scene("own", crs, gsd, (0, 0), turned, day=2)
    around = [
        scene(f"s{n}", crs, gsd, (x, y), turned + more, day=day)
        for n, (x, y, more, day) in enumerate(places)
    ]
    foreign = Ownership([own, *around], 20).foreign(own)
    if foreign is None:
        return
    grid = WindowGrid.cover(3000, 2600, *window)
    transform = Affine(*own.transform)
    expected = by_geos(foreign, grid, transform, crs)
    plan = Region(foreign=foreign).plan(grid, transform, crs, (1.0, 1.0))
    assert (plan.wanted == ~expected).all()


def test_edges_along_the_grid_leave_nothing_to_geos():
    own = scene("own", "EPSG:32612", 1.0, (0, 0), day=1)
    above = scene("above", "EPSG:32612", 1.0, (-100, -1590), size=(3200, 2600), day=2)
    foreign = Ownership([own, above], 20).foreign(own)
    grid = WindowGrid.cover(3000, 2600, 400, 0.05)
    shape, convert = region._conversion(foreign, ~Affine(*own.transform), "EPSG:32612", None)
    covered, unsure = covered_surely(grid, shape, convert, 2.6)
    assert not unsure.any()
    # The later scene ends at 1010 px, less 20 of its border.
    assert covered.sum(axis=0).tolist() == [2] * len(grid.xs)
    assert covered[:2].all()


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.integers(-3, 30)] * 4), min_size=1, max_size=6))
def test_what_is_sure_is_so_for_any_shape(boxes):
    shape = shapely.union_all([shapely.box(*(100.5 * n for n in box)) for box in boxes])
    grid = WindowGrid.cover(2500, 1900, 400, 0.05)
    covered, unsure = covered_surely(grid, shape, lambda points: points, 2.6)
    assert not (covered & unsure).any()
    if shape.area:
        known = grid.covered(shape)
        assert (known[covered]).all()
        assert not known[~covered & ~unsure].any()
