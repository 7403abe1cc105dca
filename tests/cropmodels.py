"""A small crop model with fixed random weights, loaded through ``module:factory``."""

from __future__ import annotations

import torch
from torch import nn

from geosweep.models import CropModel


def tiny() -> CropModel:
    """Two classes, 32-pixel input: quick, and sensitive to each pixel it gets."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 2),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return CropModel(model=network, label_dict={"dark": 0, "light": 1}, resize=(32, 32))


def large() -> CropModel:
    """The same network at 224 pixels, with a transform of its own: crops travel prepared then, 600 kB
    each, so many crops fill an object store.
    """
    model = CropModel(2, model=tiny().model, resize=(224, 224))
    return CropModel(
        model=tiny().model,
        label_dict={"dark": 0, "light": 1},
        resize=(224, 224),
        crop_transform=model.get_transform(),
    )


class Brightness(nn.Module):
    """Sure of ``high`` where the mean of all it gets is above a limit, of ``low`` below."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3)) - self._limit
        return torch.stack([-mean, mean], dim=1) * 100


def brightness(
    bands: tuple[int | str, ...] | None, limit: float = 0.5, side: int = 16, expand: int = 0
) -> CropModel:
    """Tells bright crops from dark ones by the given bands."""
    count = 3 if bands is None else len(bands)
    return CropModel(
        model=Brightness(limit),
        label_dict={"low": 0, "high": 1},
        bands=bands,
        resize=(side, side),
        normalize=((0.0,) * count, (1.0,) * count),
        expand=expand,
    )


def near_infrared() -> CropModel:
    """By band 4 of the raster that is swept."""
    return brightness((4,))


def height() -> CropModel:
    """By band 1 of a raster of metres."""
    return brightness((1,), limit=10.0, side=8)


def red_and_infrared() -> CropModel:
    """By two bands, with context, in another size."""
    return brightness((1, 4), side=24, expand=7)
