"""Random changes to training windows whose boxes follow the pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from ._windows import cut_boxes
from .config import AugmentConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Target = dict[str, Any]
"""boxes float32 (N, 4), labels int64 (N,), image_path, window (xoff, yoff, width, height)."""
Sample = tuple["Tensor", Target]
"""float32 (3, H, W) in 0–1, and its target."""


class Augment:
    """The augmentation of an `AugmentConfig`, driven by torch's generator.

    Parameters
    ----------
    config
        What to do, and how strongly. `mosaic` is done by the dataset, which has the other pictures.
    min_visible, min_side
        When a box that the zoom cuts is kept, as in `WindowConfig`.
    """

    def __init__(
        self,
        config: AugmentConfig | None = None,
        *,
        min_visible: float = 0.25,
        min_side: float = 4.0,
    ) -> None:
        self.config = config or AugmentConfig()
        self.min_visible, self.min_side = min_visible, min_side
        c = self.config
        self._colour = v2.ColorJitter(c.brightness, c.contrast, c.saturation, c.hue)

    def __call__(self, image: Tensor, target: Target) -> Sample:
        """Return a changed image, float32 (3, H, W) in 0–1, and its target; neither is altered."""
        c = self.config
        image, boxes = image.as_subclass(torch.Tensor), target["boxes"].as_subclass(torch.Tensor)
        if _chance(c.blank):
            return _flat(image), {**target, "boxes": boxes[:0], "labels": target["labels"][:0]}
        target = {**target, "boxes": boxes}
        if c.zoom != (1, 1):
            image, target = scale_crop(
                image,
                target,
                _log_uniform(c.zoom),
                min_visible=self.min_visible,
                min_side=self.min_side,
            )
        boxes = target["boxes"]
        if _chance(c.horizontal_flip):
            image, boxes = flip(image, boxes, axis=2)
        if _chance(c.vertical_flip):
            image, boxes = flip(image, boxes, axis=1)
        if c.turns:
            image, boxes = turn(image, boxes, int(torch.randint(4, ())))
        return self._recolour(image), {**target, "boxes": boxes}

    def _recolour(self, image: Tensor) -> Tensor:
        c = self.config
        image = self._colour(image).clamp(0, 1) ** _log_uniform(c.gamma)
        if _chance(c.blur):
            image = v2.functional.gaussian_blur(image, [5, 5], [_uniform(0.3, 1.2)])
        if _chance(c.noise):
            image = image + torch.randn_like(image) * _uniform(0, 0.03)
        return image.clamp(0, 1)


def flip(image: Tensor, boxes: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mirror an image (3, H, W) and its boxes (N, 4) along axis 1 (top-bottom) or 2 (left-right)."""
    near, far = (0, 2) if axis == 2 else (1, 3)
    boxes = boxes.clone()
    boxes[:, [near, far]] = image.shape[axis] - boxes[:, [far, near]]
    return image.flip(axis), boxes


def turn(image: Tensor, boxes: Tensor, quarters: int) -> tuple[Tensor, Tensor]:
    """Turn an image (3, H, W) and its boxes (N, 4) by quarters of a circle, anticlockwise."""
    for _ in range(quarters % 4):
        width = image.shape[2]
        image = torch.rot90(image, 1, (1, 2))
        x0, y0, x1, y1 = boxes.unbind(1)
        boxes = torch.stack([y0, width - x1, y1, width - x0], dim=1)
    return image.contiguous(), boxes


def scale_crop(
    image: Tensor, target: Target, factor: float, *, min_visible: float, min_side: float
) -> Sample:
    """Magnify an image about a random place and keep its size.

    A factor over 1 shows a part of the picture; one below 1 shows it all, smaller, on black.

    Parameters
    ----------
    image, target
        Float (3, H, W) with its boxes.
    factor
        Magnification.
    min_visible, min_side
        When a box that is cut is kept.
    """
    height, width = image.shape[1:]
    high, wide = max(1, round(height * factor)), max(1, round(width * factor))
    image = F.interpolate(
        image[None], (high, wide), mode="bilinear", antialias=True, align_corners=False
    )[0]
    ratio = torch.tensor([wide / width, high / height] * 2)
    # Where the new picture's corner lies on the scaled one: to its left where that is smaller.
    x, y = (_between(0, scaled - side) for scaled, side in ((wide, width), (high, height)))
    canvas = image.new_zeros(3, height, width)
    _paste(canvas, image, x, y)
    return canvas, _cut_target(
        {**target, "boxes": target["boxes"] * ratio},
        (x, y, width, height),
        min_visible=min_visible,
        min_side=min_side,
    )


def mosaic(samples: Sequence[Sample], *, min_visible: float, min_side: float) -> Sample:
    """Make one picture of four.

    Bochkovskiy et al., *YOLOv4*, 2020 (https://arxiv.org/abs/2004.10934): the four meet at a random
    point, and each gives a random part of itself at its own scale.

    Parameters
    ----------
    samples
        Four images with their targets. The first gives the size, `image_path` and `window`.
    min_visible, min_side
        When a box that is cut is kept.
    """
    first, target = samples[0]
    height, width = first.shape[1:]
    x, y = _between(width // 4, width - width // 4), _between(height // 4, height - height // 4)
    corners = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    canvas = first.new_zeros(3, height, width)
    boxes, labels = [], []
    for (x0, y0, x1, y1), (image, its) in zip(corners, samples, strict=True):
        wide, high = x1 - x0, y1 - y0
        left = _between(0, max(image.shape[2] - wide, 0))
        top = _between(0, max(image.shape[1] - high, 0))
        _paste(canvas[:, y0:y1, x0:x1], image, left, top)
        part = _cut_target(its, (left, top, wide, high), min_visible=min_visible, min_side=min_side)
        boxes.append(part["boxes"] + torch.tensor([x0, y0, x0, y0]))
        labels.append(part["labels"])
    return canvas, {**target, "boxes": torch.cat(boxes), "labels": torch.cat(labels)}


def _paste(canvas: Tensor, image: Tensor, x: int, y: int) -> None:
    """Fill a canvas with the image's part from (x, y) on, which may lie beyond its edges."""
    part = image[:, max(y, 0) : y + canvas.shape[1], max(x, 0) : x + canvas.shape[2]]
    top, left = max(-y, 0), max(-x, 0)
    canvas[:, top : top + part.shape[1], left : left + part.shape[2]] = part


def _cut_target(
    target: Target, window: tuple[int, int, int, int], *, min_visible: float, min_side: float
) -> Target:
    boxes, kept = cut_boxes(
        target["boxes"].numpy(), window, min_visible=min_visible, min_side=min_side
    )
    return {
        **target,
        "boxes": torch.from_numpy(boxes).float(),
        "labels": target["labels"][torch.from_numpy(kept)],
    }


def _flat(image: Tensor) -> Tensor:
    """One colour with a little noise; one in five is black, white or pure: what nodata looks like."""
    colour = torch.rand(1 if _chance(0.5) else 3).expand(3).reshape(3, 1, 1)
    if _chance(0.2):
        colour = colour.round()
    strength = (0.0, 0.01, 0.03)[int(torch.randint(3, ()))]
    return (colour + strength * torch.randn(image.shape)).clamp(0, 1)


def _chance(probability: float) -> bool:
    return bool(torch.rand(()) < probability)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _log_uniform(limits: tuple[float, float]) -> float:
    return math.exp(_uniform(math.log(limits[0]), math.log(limits[1])))


def _between(low: int, high: int) -> int:
    """A whole number from `low` to `high`, or from `high` to `low`, ends included."""
    low, high = min(low, high), max(low, high)
    return low + int(torch.randint(high - low + 1, ()))
