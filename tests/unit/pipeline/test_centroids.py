"""Centroids, by the fast way and by shapely's."""

import numpy as np
import pyarrow as pa
import pytest
import shapely

from geosweep.pipeline._centroids import centroids


def wkb(shapes):
    return pa.array(shapely.to_wkb(np.array(shapes)), pa.binary())


def expected(shapes):
    return shapely.get_coordinates(shapely.centroid(np.array(shapes)))


def test_quadrilaterals_have_the_centroids_that_shapely_gives_them():
    rng = np.random.default_rng(0)
    around = np.sort(rng.uniform(0, 2 * np.pi, (500, 4)), axis=1)
    corners = np.stack([np.cos(around), np.sin(around)], axis=-1) * rng.uniform(
        1e-6, 1, (500, 1, 1)
    )
    shapes = shapely.polygons(corners + rng.uniform(-170, 170, (500, 1, 2)))
    found = centroids(wkb(shapes), geographic=True)
    assert np.abs(found - expected(shapes)).max() < 1e-11


def test_a_slice_of_a_column_is_read_where_it_starts():
    shapes = [shapely.box(n, n, n + 1, n + 1) for n in range(10)]
    assert centroids(wkb(shapes)[3:5], geographic=False).tolist() == [[3.5, 3.5], [4.5, 4.5]]


def test_boxes_without_area_still_have_a_place():
    point, line = shapely.box(2, 3, 2, 3), shapely.box(2, 3, 4, 3)
    assert centroids(wkb([point, line]), geographic=False).tolist() == [[2, 3], [3, 3]]


@pytest.mark.parametrize("other", [None, shapely.box(5, 5, 6, 6).buffer(0.1)], ids=["box", "any"])
def test_what_lies_across_the_antimeridian_is_not_counted_on_the_other_side(other):
    torn = shapely.Polygon([(179.9, 1), (-179.8, 1), (-179.8, 2), (179.9, 2)])
    x, y = centroids(wkb([torn, *([] if other is None else [other])]), geographic=True)[0]
    assert (x, y) == pytest.approx((180.05, 1.5))
    # In metres such a width is nothing special.
    x, _ = centroids(wkb([torn]), geographic=False)[0]
    assert abs(x) < 1


def test_any_other_geometry_is_left_to_shapely():
    shapes = [
        shapely.Point(1, 2),
        shapely.Polygon([(0, 0), (3, 0), (0, 3)]),
        shapely.box(0, 0, 4, 4).difference(shapely.box(0, 0, 2, 2)),
        shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(3, 0, 4, 1)]),
    ]
    assert np.allclose(centroids(wkb(shapes), geographic=True), expected(shapes))
    # As large as a box of ours, but something else.
    same = shapely.LineString([(n, n * n) for n in range(5)])
    odd = shapely.to_wkb(same) + b"\0" * 4
    assert len(odd) == len(shapely.to_wkb(shapely.box(0, 0, 1, 1)))
    assert centroids(pa.array([odd], pa.binary()), geographic=True).shape == (1, 2)


def test_no_geometry_is_no_place():
    column = pa.array([None, shapely.to_wkb(shapely.box(0, 0, 2, 2))], pa.binary())
    found = centroids(column, geographic=True)
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [1, 1]
    assert centroids(column[:0], geographic=True).shape == (0, 2)
