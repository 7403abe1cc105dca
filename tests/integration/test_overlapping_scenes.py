"""Scenes that overlap anyhow: every object of the ground stands in the output once, and whole."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geosweep.pipeline import run
from tests.detectors import grey, paint_patches
from tests.rasters import UTM, write_raster
from tests.scenes import assert_sums, job_over

SIDE = 1500
LEFT, TOP, GSD = 500_000.0, 4_978_000.0, 0.1


def ground(rng):
    """An image with painted objects of 8 to 38 px that do not touch, and their boxes."""
    boxes = []
    for x in range(20, SIDE - 60, 90):
        for y in range(20, SIDE - 60, 90):
            dx, dy = rng.integers(0, 40, 2)
            wide, high = rng.integers(8, 39, 2)
            boxes.append((int(x + dx), int(y + dy), int(x + dx + wide), int(y + dy + high)))
    return paint_patches(grey(SIDE, SIDE), boxes), boxes


def cut(rng, folder, image):
    """Six scenes: two rows of three that overlap by 60 to 200 px each way, dated in any order."""
    columns = np.array([0, 500, 1000, SIDE]) + np.array([0, *rng.integers(-90, 90, 2), 0])
    middle = int(750 + rng.integers(-90, 90))
    days = rng.permutation(6) + 1
    paths = []
    for number in range(6):
        row, column = divmod(number, 3)
        grow = rng.integers(30, 100, 4)
        x0 = max(int(columns[column] - grow[0]), 0)
        x1 = min(int(columns[column + 1] + grow[1]), SIDE)
        y0 = 0 if row == 0 else int(middle - grow[2])
        y1 = SIDE if row == 1 else int(middle + grow[3])
        path = folder / f"s{number}.tif"
        write_raster(
            path,
            image[:, y0:y1, x0:x1],
            transform=from_origin(LEFT + x0 * GSD, TOP - y0 * GSD, GSD, GSD),
        )
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(TIFFTAG_DATETIME=f"2022:06:{days[number]:02d} 12:00:00")
        paths.append(path)
    return paths


@pytest.mark.parametrize("seed", range(8))
def test_every_object_stands_once_and_whole(tmp_path, seed):
    rng = np.random.default_rng(seed)
    image, boxes = ground(rng)
    result = run(
        job_over(cut(rng, tmp_path, image), tmp_path / "out"), engine="local", progress=False
    )
    assert_sums(result.counts)
    assert result.counts["duplicates_owned"] > 0
    bounds = result.to_geopandas().to_crs(UTM).bounds
    found = np.stack(
        [
            (bounds.minx - LEFT) / GSD,
            (TOP - bounds.maxy) / GSD,
            (bounds.maxx - LEFT) / GSD,
            (TOP - bounds.miny) / GSD,
        ],
        axis=1,
    )
    assert sorted(map(tuple, found.round().astype(int).tolist())) == sorted(boxes)
