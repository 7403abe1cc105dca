"""Outlines as bytes: what shapely makes of the same corners."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine

from geosweep.pipeline._outlines import outlines_of

ROTATED = Affine(0.1, 0, 500_000, 0, -0.1, 4_978_000) @ Affine.rotation(30)
LINE = Affine(1e-4, 0, 179.9, 0, -1e-4, 45)


def boxes(count):
    corner = np.random.default_rng(0).uniform(0, 3000, (count, 2))
    return np.concatenate([corner, corner + 40], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("transform", "crs", "target"),
    [(None, None, None), (ROTATED, "EPSG:32612", "EPSG:4326"), (LINE, "EPSG:4326", "EPSG:4326")],
)
def test_bytes_and_bounds_are_shapelys(transform, crs, target):
    outlines = outlines_of(boxes(500), transform, crs, target)
    shapes = shapely.polygons(outlines.corners)
    for number, parted in outlines.parted.items():
        shapes[number] = parted
    assert bool(outlines.parted) == (transform is LINE)
    which = np.random.default_rng(1).permutation(500)[:100]
    wkb = outlines.wkb(which)
    wkb.validate(full=True)
    assert wkb.to_pylist() == shapely.to_wkb(shapes[which]).tolist()
    np.testing.assert_array_equal(outlines.bounds(), shapely.bounds(shapes))


def test_those_across_the_line_have_two_halves():
    box = np.array([[900, 0, 1200, 100], [0, 0, 50, 50], [2000, 0, 2050, 50]], np.float32)
    outlines = outlines_of(box, LINE, "EPSG:4326", "EPSG:4326")
    halves, *others = shapely.from_wkb(outlines.wkb(np.arange(3)).to_numpy(zero_copy_only=False))
    assert [part.bounds[0::2] for part in halves.geoms] in (
        [(pytest.approx(179.99), 180.0), (-180.0, pytest.approx(-179.98))],
        [(-180.0, pytest.approx(-179.98)), (pytest.approx(179.99), 180.0)],
    )
    assert [shape.geom_type for shape in others] == ["Polygon", "Polygon"]
    assert others[1].bounds[0] == pytest.approx(-179.9)
