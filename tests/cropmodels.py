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
    """The same network at 224 pixels: a crop takes 600 kB, so many crops fill an object store."""
    return CropModel(model=tiny().model, label_dict={"dark": 0, "light": 1}, resize=(224, 224))
