"""Boxes follow the pixels: a painted rectangle stays exactly enclosed, whatever is done to it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from geosweep.models.data import Augment, AugmentConfig
from geosweep.models.data.augment import flip, mosaic, scale_crop, turn

STILL = {
    "horizontal_flip": 0,
    "vertical_flip": 0,
    "turns": False,
    "zoom": (1, 1),
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "hue": 0,
    "gamma": (1, 1),
    "blur": 0,
    "noise": 0,
}
rectangles = st.tuples(
    st.integers(0, 30), st.integers(0, 20), st.integers(6, 18), st.integers(6, 20)
)


def painted(x, y, width, height, *, size=(40, 48), value=1.0):
    """A black picture (3, H, W) with a rectangle, and its target."""
    image = torch.zeros(3, *size)
    image[:, y : y + height, x : x + width] = value
    box = torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32)
    return image, {"boxes": box, "labels": torch.tensor([7]), "image_path": "a", "window": (0,) * 4}


def bounds(image, low=0.5):
    """The box of the pixels brighter than `low`."""
    ys, xs = torch.nonzero(image[0] > low, as_tuple=True)
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]


def test_flips_by_hand():
    image, target = painted(2, 1, 3, 5, size=(8, 12))
    mirrored, boxes = flip(image, target["boxes"], axis=2)
    assert boxes.tolist() == [[7, 1, 10, 6]] == [bounds(mirrored)]
    mirrored, boxes = flip(image, target["boxes"], axis=1)
    assert boxes.tolist() == [[2, 2, 5, 7]] == [bounds(mirrored)]
    assert target["boxes"].tolist() == [[2, 1, 5, 6]]


@pytest.mark.parametrize(
    ("quarters", "shape", "box"),
    [
        (0, (8, 12), [2, 1, 5, 6]),
        (1, (12, 8), [1, 7, 6, 10]),
        (2, (8, 12), [7, 2, 10, 7]),
        (3, (12, 8), [2, 2, 7, 5]),
    ],
)
def test_turns_by_hand(quarters, shape, box):
    image, target = painted(2, 1, 3, 5, size=(8, 12))
    turned, boxes = turn(image, target["boxes"], quarters)
    assert tuple(turned.shape[1:]) == shape
    assert boxes.tolist() == [box] == [bounds(turned)]


@pytest.mark.parametrize(
    ("factor", "seed"), [(2.0, 0), (2.0, 1), (0.5, 0), (0.5, 5), (1.0, 2), (1.37, 3)]
)
def test_zoom_shows_what_its_box_says(factor, seed):
    torch.manual_seed(seed)
    image, target = painted(14, 12, 16, 14)
    zoomed, its = scale_crop(image, target, factor, min_visible=0, min_side=0)
    assert zoomed.shape == image.shape
    (box,) = its["boxes"].tolist()
    assert box == pytest.approx(bounds(zoomed), abs=1)
    if factor in (0.5, 1.0, 2.0):
        assert box == bounds(zoomed)
    if factor < 1:
        assert [box[2] - box[0], box[3] - box[1]] == [8, 7]


@settings(max_examples=60, deadline=None)
@given(rectangles, st.integers(0, 2**32))
def test_flips_and_turns_enclose_exactly(rectangle, seed):
    torch.manual_seed(seed)
    image, target = painted(*rectangle)
    moved = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "turns": True}
    out, its = Augment(AugmentConfig(**{**STILL, **moved}))(image, target)
    assert its["boxes"].tolist() == [bounds(out)]
    assert its["labels"].tolist() == [7] and its["image_path"] == "a"
    assert out.sum() == image.sum()


@settings(max_examples=60, deadline=None)
@given(rectangles, st.integers(0, 2**32))
def test_the_whole_augmentation_encloses_to_a_pixel(rectangle, seed):
    torch.manual_seed(seed)
    image, target = painted(*rectangle)
    image = 0.1 + 0.6 * image
    before = image.clone(), target["boxes"].clone()
    out, its = Augment(min_visible=0.0, min_side=3.0)(image, target)
    assert out.dtype == torch.float32 and out.min() >= 0 and out.max() <= 1
    assert torch.equal(image, before[0]) and torch.equal(target["boxes"], before[1])
    assert len(its["boxes"]) == len(its["labels"])
    if len(its["boxes"]):
        x0, y0, x1, y1 = its["boxes"][0].round().int().tolist()
        inside = torch.zeros_like(out[0], dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        # Inside is brighter than anything outside, a pixel on each side of the edge aside.
        edge = torch.zeros_like(inside)
        edge[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = True
        core = torch.zeros_like(inside)
        core[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = True
        if core.any() and not edge.all():
            assert out.mean(0)[core].mean() > out.mean(0)[~edge].max() - 0.12


def test_nothing_is_done_where_nothing_is_asked_for():
    image, target = painted(3, 4, 8, 9)
    out, its = Augment(AugmentConfig(**STILL))(image, target)
    assert torch.equal(out, image) and torch.equal(its["boxes"], target["boxes"])


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.9},
        {"hue": 0.3},
        {"gamma": (2, 3)},
        {"blur": 1},
        {"noise": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_colours_change_and_boxes_stay(change):
    torch.manual_seed(1)
    image, target = painted(3, 4, 8, 9)
    image = (0.2 + 0.5 * image) * torch.tensor([0.9, 0.6, 0.3]).view(3, 1, 1)
    out, its = Augment(AugmentConfig(**{**STILL, **change}))(image, target)
    assert not torch.allclose(out, image, atol=1e-3)
    assert torch.equal(its["boxes"], target["boxes"])


def test_a_mosaic_is_made_of_four_and_their_boxes():
    torch.manual_seed(4)
    values = (0.2, 0.4, 0.6, 0.8)
    samples = [painted(0, 0, 48, 40, value=value) for value in values]
    picture, target = mosaic(samples, min_visible=0, min_side=0)
    assert picture.shape == (3, 40, 48)
    assert len(target["boxes"]) == 4
    for box, value in zip(target["boxes"].int().tolist(), values, strict=True):
        x0, y0, x1, y1 = box
        assert (picture[:, y0:y1, x0:x1] == value).all()
        assert (picture[0] == value).sum() == (x1 - x0) * (y1 - y0)
    assert target["image_path"] == "a"


@settings(max_examples=30, deadline=None)
@given(st.lists(rectangles, min_size=4, max_size=4), st.integers(0, 2**32))
def test_boxes_of_a_mosaic_enclose_exactly(four, seed):
    torch.manual_seed(seed)
    values = (0.2, 0.4, 0.6, 0.8)
    samples = [painted(*one, value=value) for one, value in zip(four, values, strict=True)]
    for i, (_, target) in enumerate(samples):
        target["labels"] = torch.tensor([i])
    picture, target = mosaic(samples, min_visible=0, min_side=0)
    seen = {i for i, value in enumerate(values) if (picture[0] == value).any()}
    assert set(target["labels"].tolist()) == seen
    for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
        assert box == bounds((picture == values[label]).float())


def test_small_pictures_leave_a_mosaic_black_where_they_end():
    torch.manual_seed(0)
    samples = [painted(0, 0, 6, 6), *(painted(0, 0, 5, 5, size=(5, 5)) for _ in range(3))]
    picture, target = mosaic(samples, min_visible=0, min_side=0)
    assert picture.shape == (3, 40, 48)
    assert (target["boxes"][1:, 2:] - target["boxes"][1:, :2] == 5).all()


def test_blank_pictures_have_no_boxes():
    torch.manual_seed(2)
    blank = Augment(AugmentConfig(**{**STILL, "blank": 1}))
    colours = []
    for _ in range(20):
        out, its = blank(*painted(3, 4, 8, 9))
        assert out.shape == (3, 40, 48) and its["boxes"].shape == (0, 4)
        assert len(its["labels"]) == 0 and out.std((1, 2)).max() < 0.05
        colours.append(out.mean((1, 2)))
    assert torch.stack(colours).std(0).min() > 0.1


def test_turns_use_every_direction():
    torch.manual_seed(3)
    augment = Augment(AugmentConfig(**{**STILL, "turns": True, "horizontal_flip": 0.5}))
    image, target = painted(1, 2, 7, 6, size=(32, 32))
    seen = {tuple(augment(image, target)[1]["boxes"][0].tolist()) for _ in range(100)}
    assert len(seen) == 8


@pytest.mark.parametrize(
    "wrong", [{"zoom": (2, 1)}, {"gamma": (0, 1)}, {"blur": 1.5}, {"hue": 0.7}, {"flip": 0.5}]
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        AugmentConfig(**wrong)
