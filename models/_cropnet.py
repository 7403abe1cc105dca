"""Classifier networks that a CropModel can build by name."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn
from torchvision import models

from ..catalog.errors import ModelError
from ._backbones import load_backbone, normalization
from ._efficientnet import LEVELS, EfficientNetLite0

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

REVISION = "cropmodel-1"
"""Raised whenever the same weights would give other probabilities."""
# Name -> stride of the last level used. The shorter one sees texture and colour rather than shape, at
# a quarter of the size.
_LITE0 = {"efficientnet-lite0": 32, "efficientnet-lite0-stride16": 16}
# (has a third convolution per block, blocks per layer) -> torchvision's name
_RESNETS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


class Lite0Classifier(nn.Module):
    """EfficientNet-Lite0 features, averaged over the crop, under one linear layer."""

    def __init__(self, num_classes: int, stride: int = 32) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0((stride,))
        self.fc = nn.Linear(LEVELS[stride][1], num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W), normalised, to (B, C)."""
        (level,) = self.backbone(x).values()
        return level.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W), normalised, to (B, num_classes) logits."""
        return self.fc(self.features(x))


def build_classifier(
    architecture: str, num_classes: int, num_bands: int = 3, pretrained: str | None = None
) -> nn.Module:
    """Build a classifier.

    Parameters
    ----------
    architecture
        ``resnet18`` … ``resnet152`` (torchvision's), ``efficientnet-lite0`` or its shorter form
        ``efficientnet-lite0-stride16``.
    num_classes
        Width of the last layer, which has random weights.
    num_bands
        Channels of the input. Where they are not three, each gets the mean of what the first layer
        has learned for its three.
    pretrained
        Weights of all other layers: ``imagenet`` (at hand for efficientnet-lite0 alone), or a file
        of torchvision's; random ones if None.

    Raises
    ------
    ModelError
        For other names, and for weights that don't fit or are not there.
    """
    if architecture in _LITE0:
        network: nn.Module = Lite0Classifier(num_classes, _LITE0[architecture])
        if pretrained is not None:
            load_backbone(network.backbone, "efficientnet-lite0", pretrained)  # type: ignore[arg-type]
    elif architecture in _RESNETS.values():
        network = models.get_model(architecture, weights=None, num_classes=num_classes)
        if pretrained is not None:
            head, network.fc = network.fc, nn.Identity()
            load_backbone(network, architecture, pretrained)
            network.fc = head
    else:
        names = ", ".join([*_LITE0, *_RESNETS.values()])
        raise ModelError(
            f"crop model architecture {architecture!r} can't be built by name (there are {names}); "
            "give the network itself as model=."
        )
    if num_bands != 3:
        _take_bands(network, num_bands, keep=pretrained is not None)
    return network


def default_normalize(architecture: str, num_bands: int) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation that a network is used to: ImageNet's where there are three bands.

    Other numbers of bands get 0.5 and 0.25, about where pixels in 0–1 lie.
    """
    if num_bands != 3:
        return (0.5,) * num_bands, (0.25,) * num_bands
    return normalization("efficientnet-lite0" if architecture in _LITE0 else architecture)


def _take_bands(network: nn.Module, num_bands: int, *, keep: bool) -> None:
    """Let the first convolution take another number of channels; `keep` what it has learned."""
    name, first = next(
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)
    )
    wider = copy.deepcopy(first)
    wider.in_channels = num_bands
    mean = first.weight.detach().mean(1, keepdim=True) * (first.in_channels / num_bands)
    wider.weight = nn.Parameter(mean.repeat(1, num_bands, 1, 1))
    if not keep:
        nn.init.kaiming_normal_(wider.weight, mode="fan_out", nonlinearity="relu")
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, wider)


def guess_resnet(keys: Iterable[str]) -> str | None:
    """Recognise a torchvision ResNet by its tensor names (without prefix)."""
    names = set(keys)
    if "fc.weight" not in names:
        return None
    blocks = tuple(
        len({k.split(".")[1] for k in names if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)
    )
    return _RESNETS.get(("layer1.0.conv3.weight" in names, blocks))  # type: ignore[arg-type]
