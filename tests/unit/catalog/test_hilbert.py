"""Places along the Hilbert curve: geopandas' own."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geosweep.catalog._hilbert import hilbert_distances


@pytest.mark.parametrize("bounds", [(-3.0, -3.0, 3.0, 3.0), (0.0, -0.5, 0.1, 0.5)])
def test_places_are_geopandas_places(bounds):
    points = np.random.default_rng(0).normal(0, 1, (70_000, 2))
    points[:4] = [bounds[:2], bounds[2:], (bounds[0], bounds[3]), (bounds[2], bounds[1])]
    theirs = gpd.GeoSeries(shapely.points(points)).hilbert_distance(bounds)
    np.testing.assert_array_equal(hilbert_distances(points, bounds), theirs)


def test_points_on_a_line_and_in_one_place():
    line = np.array([[1.0, 2.0], [1.0, 2.5], [1.0, 3.0]])
    theirs = gpd.GeoSeries(shapely.points(line)).hilbert_distance((1, 2, 1, 3))
    np.testing.assert_array_equal(hilbert_distances(line, (1, 2, 1, 3)), theirs)
    assert hilbert_distances(np.ones((3, 2)), (1, 1, 1, 1)).tolist() == [0, 0, 0]
    assert len(hilbert_distances(np.zeros((0, 2)), (0, 0, 0, 0))) == 0
