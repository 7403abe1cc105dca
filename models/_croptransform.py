"""From the pixels of a crop to the input of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_tensor

from ..catalog.errors import ModelError

CropPixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"
CropTransform: TypeAlias = Callable[[Any], Tensor]
"""From the pixels of a crop, (h, w, C), to float32 (C', H, W)."""
Augment: TypeAlias = "str | Callable[[Tensor], Tensor]"

AUGMENTATIONS = ("none", "flip", "turns")
"""Augmentations by name: nothing; a random horizontal flip; one of the eight symmetries."""


def check_crop(crop: CropPixels) -> None:
    """Raise ModelError unless a crop is (h, w, C) of uint8 or float32."""
    if crop.ndim != 3 or crop.dtype not in (np.uint8, np.float32):
        raise ModelError(
            f"A crop is {crop.dtype} of shape {crop.shape}: give (height, width, bands) of uint8 or "
            "float32; 16-bit rasters need rescale, such as rescale=(0, 3000)."
        )


def crop_to_tensor(crop: CropPixels) -> Tensor:
    """Turn the pixels of a crop into float32 (C, h, w).

    Parameters
    ----------
    crop
        (h, w, C): uint8, which becomes 0–1, or float32, which is kept as it is.

    Raises
    ------
    ModelError
        For other shapes and data types.
    """
    check_crop(crop)
    return to_tensor(crop)


def standard_transform(
    normalize: Callable[[Tensor], Tensor], resize: Sequence[int], interpolation: str
) -> CropTransform:
    """To 0–1, normalise, then resize with anti-aliasing: DeepForest's order, to the bit."""
    mode = transforms.InterpolationMode(interpolation)
    return transforms.Compose(
        [crop_to_tensor, normalize, transforms.Resize(list(resize), interpolation=mode)]
    )


def augmented(transform: CropTransform, augment: Augment) -> CropTransform:
    """Let an augmentation follow a transform; it sees the network's input, (C, H, W)."""
    if augment == "none":
        return transform
    if augment == "flip":
        return transforms.Compose([transform, transforms.RandomHorizontalFlip(0.5)])
    return transforms.Compose([transform, turn_randomly if augment == "turns" else augment])


def turn_randomly(image: Tensor) -> Tensor:
    """Give one of the eight symmetries of an image (C, H, W); of four, if it is not square."""
    choice = int(torch.randint(8, ()))
    if choice & 1:
        image = image.flip(2)
    if choice & 2:
        image = image.flip(1)
    if choice & 4 and image.shape[1] == image.shape[2]:
        image = image.transpose(1, 2)
    return image


def check_augment(augment: Augment) -> Augment:
    """Raise ModelError unless `augment` is callable or one of `AUGMENTATIONS`."""
    if not callable(augment) and augment not in AUGMENTATIONS:
        raise ModelError(
            f"augment is {augment!r}: give {', '.join(AUGMENTATIONS)}, or a function from the "
            "network's input (C, H, W) to another such tensor."
        )
    return augment
