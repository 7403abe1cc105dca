"""The same weights give the boxes that DeepForest's `predict_tile` gives."""

import numpy as np
import pytest
import rasterio

from geosweep.models._annotations import deepforest_data
from geosweep.pipeline import predict_image, predict_tile
from tests.peers import make_deepforest, make_retinanet
from tests.rasters import write_raster

pytest.importorskip("deepforest")


CORNERS = ["xmin", "ymin", "xmax", "ymax"]


def in_order(rows):
    """Sorted by position: many scores of a random network are equal."""
    return rows[np.lexsort(rows.round(2).T)]


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return make_deepforest(make_retinanet(folder), folder), folder


@pytest.fixture(scope="module", params=["four windows", "one strip", "smaller than a window"])
def tile(request, tmp_path_factory):
    """Part of a NEON tile, as a striped TIFF without georeferencing."""
    width, height = {"four windows": (640, 560), "one strip": (700, 400)}.get(
        request.param, (310, 250)
    )
    source = deepforest_data() / "2019_YELL_2_541000_4977000_image_crop.png"
    with rasterio.open(source) as dataset:
        data = dataset.read([1, 2, 3])[:, 100 : 100 + height, 200 : 200 + width]
    path = tmp_path_factory.mktemp("tile") / "tile.tif"
    return write_raster(path, data, crs=None)


def test_predict_tile_gives_deepforests_mosaic(peer, tile):
    model, folder = peer
    theirs = model.predict_tile(str(tile), patch_size=400, patch_overlap=0.05, iou_threshold=0.15)
    ours = predict_tile(tile, detector=folder, merge="nms", iou_threshold=0.15, device="cpu")
    assert len(ours) == len(theirs) > 50
    ours[CORNERS] = np.trunc(ours[CORNERS])
    ours = ours.sort_values([*CORNERS, "label"])
    theirs = theirs.sort_values([*CORNERS, "label"])
    np.testing.assert_array_equal(ours[CORNERS], theirs[CORNERS].astype(float))
    np.testing.assert_allclose(ours.score, theirs.score.astype(float), atol=1e-4)
    assert ours.label.tolist() == theirs.label.tolist()


def test_predict_image_gives_deepforests_boxes_before_truncation(peer, tile):
    model, folder = peer
    with rasterio.open(tile) as dataset:
        image = dataset.read().transpose(1, 2, 0)
    ours = predict_image(image, detector=folder, device="cpu")
    import torch

    with torch.inference_mode():
        (found,) = model.model([torch.from_numpy(image.transpose(2, 0, 1)).float() / 255])
    boxes, scores = found["boxes"].numpy(), found["scores"].numpy()
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    assert len(ours) == solid.sum() > 50
    ours, boxes, scores = ours[[*CORNERS, "score"]].to_numpy(), boxes[solid], scores[solid]
    theirs = np.concatenate([boxes, scores[:, None]], axis=1)
    np.testing.assert_allclose(in_order(ours), in_order(theirs), atol=0.01)
