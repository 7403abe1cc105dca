"""`predict_file` looks at the images that an annotation file names, and at nothing else."""

import pandas as pd
import pytest
import rasterio

from geosweep.catalog.errors import AnnotationError, RasterError
from geosweep.models import evaluate
from geosweep.models._annotations import deepforest_data
from geosweep.pipeline import predict_file, predict_image, predict_tile
from tests.rasters import write_raster

DATA = deepforest_data()
COLUMNS = ["xmin", "ymin", "xmax", "ymax", "score"]


def in_order(rows):
    """Rows are in Hilbert order, on the map or in pixels."""
    return rows[COLUMNS].sort_values(COLUMNS, ignore_index=True)


def test_images_by_the_names_that_the_file_has():
    found = predict_file(DATA / "OSBS_029.csv")
    assert set(found["image_path"]) == {"OSBS_029.tif"}
    assert found.crs is None
    pd.testing.assert_frame_equal(
        in_order(found), in_order(predict_image(path=DATA / "OSBS_029.tif"))
    )
    # Both sides name the image alike, so they can be compared as they are.
    assert evaluate(found, DATA / "OSBS_029.csv", coco=False).f1 > 0.5


def test_images_of_one_name_in_windows(tmp_path):
    with rasterio.open(DATA / "SOAP_061.png") as source:
        pixels = source.read([1, 2, 3])
    names = ["b/tile.tif", "a/tile.tif"]
    for name, start in zip(names, (0, 200), strict=True):
        (tmp_path / name).parent.mkdir()
        write_raster(tmp_path / name, pixels[:, 200:360, start : start + 200])
    frame = pd.DataFrame({"image_path": [*names, names[0]]})
    found = predict_file(frame, tmp_path, patch_size=128)
    assert found["image_path"].unique().tolist() == names
    for name in names:
        alone = predict_tile(tmp_path / name, patch_size=128)
        assert len(alone) > 2
        mine = found[found["image_path"] == name]
        pd.testing.assert_frame_equal(in_order(mine), in_order(alone))


def test_nothing_found_keeps_the_columns():
    found = predict_file(DATA / "OSBS_029.csv", score_threshold=1.0)
    assert len(found) == 0
    assert {"image_path", *COLUMNS, "label", "geometry"} <= set(found.columns)


def test_no_image_and_an_image_that_is_not_there():
    with pytest.raises(AnnotationError, match="no image to look at"):
        predict_file(pd.DataFrame({"image_path": []}))
    with pytest.raises(RasterError, match=r"gone\.tif"):
        predict_file(pd.DataFrame({"image_path": ["gone.tif"]}), DATA)
