"""crop_bounds against DeepForest's own dataset."""

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from geosweep.catalog.errors import ModelError
from geosweep.models import crop_bounds

BOXES = [
    [10, 20, 30, 50],
    [10.7, 20.2, 30.1, 50.9],
    [0, 0, 1, 1],
    [0, 0, 60, 50],
    [59, 49, 60, 50],
    [5, 5, 5, 5],
    [5.2, 5.9, 5.4, 6.1],
    [58.5, 48.5, 60, 50],
    [1, 2, 4, 6],
]


@pytest.mark.parametrize("expand", [0, 3, 200])
def test_cuts_what_deepforest_cuts(tmp_path, expand):
    cropmodel = pytest.importorskip("deepforest.datasets.cropmodel")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 50, 60), np.uint8)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=60, height=50, count=3, dtype="uint8"
    ) as file:
        file.write(pixels)
    frame = pd.DataFrame(BOXES, columns=["xmin", "ymin", "xmax", "ymax"], dtype=float)
    frame["image_path"] = "a.tif"
    dataset = cropmodel.BoundingBoxDataset(
        frame, str(tmp_path), transform=lambda crop: crop, expand=expand
    )
    for i, (x0, y0, x1, y1) in enumerate(crop_bounds(BOXES, expand, 60, 50)):
        np.testing.assert_array_equal(np.moveaxis(pixels[:, y0:y1, x0:x1], 0, 2), dataset[i])


def test_takes_one_box_and_none():
    assert crop_bounds([1, 2, 4, 6], 1, 60, 50).tolist() == [0, 1, 5, 7]
    assert crop_bounds(np.zeros((0, 4), np.float32), 1, 60, 50).shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-5, -5, 3, 3], [0, 0, 3, 3]),  # over the corner
        ([55, 45, 70, 70], [55, 45, 60, 50]),
        ([80, 10, 90, 20], [59, 10, 60, 20]),  # outside: the nearest pixel, never empty
        ([-9, -9, -2, -2], [0, 0, 1, 1]),
    ],
)
def test_boxes_over_the_edge(box, expected):
    assert crop_bounds(box, 0, 60, 50).tolist() == expected


@given(
    st.lists(st.floats(-100, 200, width=32), min_size=4, max_size=4),
    st.integers(0, 40),
    st.integers(1, 80),
    st.integers(1, 80),
)
def test_never_empty_and_never_outside(values, expand, width, height):
    box = [min(values[0], values[2]), min(values[1], values[3])]
    box += [max(values[0], values[2]), max(values[1], values[3])]
    x0, y0, x1, y1 = crop_bounds(box, expand, width, height)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_negative_context_is_refused():
    with pytest.raises(ModelError, match="expand is -1"):
        crop_bounds([0, 0, 1, 1], -1, 9, 9)
