"""Random training crops whose boxes follow the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ._annotations import LabelledImage


@dataclass(frozen=True)
class CropConfig:
    """How training crops are drawn.

    Parameters
    ----------
    size
        Side of a crop in pixels.
    scale
        Range of the zoom, drawn uniformly in its logarithm.
    near_box
        Share of the crops that are placed around a random box; the others lie anywhere.
    min_visible, min_side
        A box cut by the crop is kept if this share of its area and this many pixels of its shorter
        side are left.
    brightness, contrast, saturation, hue
        Strengths as in ``torchvision.transforms.v2.ColorJitter``.
    blank
        Share of the crops that are one flat colour with a little noise and no boxes: without them a
        detector makes up objects where there is nothing to see (water, nodata).
    gamma
        Range of the exponent, drawn uniformly in its logarithm.
    blur, noise
        Probabilities of a slight Gaussian blur and of noise with a standard deviation up to 0.03.
    """

    size: int = 384
    scale: tuple[float, float] = (0.7, 1.4)
    near_box: float = 0.5
    blank: float = 0.0
    min_visible: float = 0.25
    min_side: float = 5.0
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.3
    hue: float = 0.03
    gamma: tuple[float, float] = (0.75, 1.33)
    blur: float = 0.15
    noise: float = 0.2


class RandomCrops:
    """Draws augmented crops from images in memory.

    Parameters
    ----------
    images
        Labelled images, each at least as large as a crop.
    weights
        How often each is drawn.
    config
        The augmentation.
    seed
        Makes the sequence of crops repeatable; torch's global generator drives the colour jitter.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        weights: Sequence[float],
        config: CropConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.images = list(images)
        self.config = config or CropConfig()
        self.weights = np.asarray(weights, float) / np.sum(weights)
        self.rng = np.random.default_rng(seed)
        c = self.config
        self.colour = v2.ColorJitter(c.brightness, c.contrast, c.saturation, c.hue)

    def sample(self) -> tuple[Tensor, Tensor]:
        """Return one crop, float32 (3, size, size) in 0–1, and its boxes, float32 (N, 4)."""
        c, rng = self.config, self.rng
        if rng.random() < c.blank:
            return self._blank(), torch.zeros(0, 4)
        image = self.images[rng.choice(len(self.images), p=self.weights)]
        height, width = image.pixels.shape[1:]
        side = round(c.size / math.exp(rng.uniform(*np.log(c.scale))))
        side = min(side, height, width)
        x, y = self._corner(image, side)
        pixels = torch.from_numpy(image.pixels[:, y : y + side, x : x + side].copy()).float() / 255
        boxes = clip_boxes(
            torch.from_numpy(image.boxes - np.array([x, y, x, y], np.float32)),
            side,
            min_visible=c.min_visible,
            min_side=c.min_side,
        )
        pixels, boxes = resize(pixels, boxes, c.size)
        pixels, boxes = dihedral(pixels, boxes, int(rng.integers(8)))
        return self._recolour(pixels), boxes

    def _blank(self) -> Tensor:
        c, rng = self.config, self.rng
        grey = rng.random() < 0.5
        colour = np.full(3, rng.random()) if grey else rng.random(3)
        if rng.random() < 0.2:
            colour = np.round(colour)  # black, white: what nodata looks like
        flat = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1).expand(3, c.size, c.size)
        return (flat + torch.randn(3, c.size, c.size) * rng.choice([0.0, 0.01, 0.03])).clamp(0, 1)

    def _corner(self, image: LabelledImage, side: int) -> tuple[int, int]:
        height, width = image.pixels.shape[1:]
        if len(image.boxes) and self.rng.random() < self.config.near_box:
            box = image.boxes[self.rng.integers(len(image.boxes))]
            centre = (box[:2] + box[2:]) / 2
            x, y = centre - self.rng.uniform(0, side, 2)
            return int(np.clip(x, 0, width - side)), int(np.clip(y, 0, height - side))
        return (
            int(self.rng.integers(width - side + 1)),
            int(self.rng.integers(height - side + 1)),
        )

    def _recolour(self, pixels: Tensor) -> Tensor:
        c, rng = self.config, self.rng
        pixels = self.colour(pixels)
        pixels = pixels.clamp(0, 1) ** math.exp(rng.uniform(*np.log(c.gamma)))
        if rng.random() < c.blur:
            pixels = v2.functional.gaussian_blur(pixels, [5, 5], [float(rng.uniform(0.3, 1.2))])
        if rng.random() < c.noise:
            pixels = pixels + torch.randn_like(pixels) * float(rng.uniform(0, 0.03))
        return pixels.clamp(0, 1)


def clip_boxes(boxes: Tensor, side: int, *, min_visible: float, min_side: float) -> Tensor:
    """Clip boxes to a square crop and drop those of which too little is left."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    clipped = boxes.clamp(0, side)
    wh = clipped[:, 2:] - clipped[:, :2]
    keep = (wh.prod(1) >= min_visible * area) & (wh.min(1).values >= min_side)
    return clipped[keep]


def resize(pixels: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Resize a square crop (3, s, s) and its boxes to `size`."""
    side = pixels.shape[-1]
    if side == size:
        return pixels, boxes
    resized = F.interpolate(
        pixels[None], (size, size), mode="bilinear", antialias=True, align_corners=False
    )[0]
    return resized, boxes * (size / side)


def dihedral(pixels: Tensor, boxes: Tensor, which: int) -> tuple[Tensor, Tensor]:
    """Apply one of the eight symmetries of the square to a crop (3, s, s) and its boxes.

    Parameters
    ----------
    pixels, boxes
        The crop and its boxes (N, 4).
    which
        0–7: bit 0 mirrors left-right, bit 1 top-bottom, bit 2 swaps the axes afterwards.
    """
    side = pixels.shape[-1]
    x0, y0, x1, y1 = boxes.unbind(1)
    if which & 1:
        pixels, x0, x1 = pixels.flip(2), side - x1, side - x0
    if which & 2:
        pixels, y0, y1 = pixels.flip(1), side - y1, side - y0
    if which & 4:
        pixels, x0, y0, x1, y1 = pixels.transpose(1, 2), y0, x0, y1, x1
    return pixels.contiguous(), torch.stack([x0, y0, x1, y1], 1)
