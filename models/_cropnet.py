"""Classifier networks that a CropModel can build by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torchvision import models

from ..catalog.errors import ModelError
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


def build_classifier(architecture: str, num_classes: int) -> nn.Module:
    """Build a classifier with random weights.

    Parameters
    ----------
    architecture
        ``resnet18`` … ``resnet152`` (torchvision's), ``efficientnet-lite0`` or its shorter form
        ``efficientnet-lite0-stride16``.
    num_classes
        Width of the last layer.

    Raises
    ------
    ModelError
        For other names.
    """
    if architecture in _LITE0:
        return Lite0Classifier(num_classes, _LITE0[architecture])
    if architecture not in _RESNETS.values():
        names = ", ".join([*_LITE0, *_RESNETS.values()])
        raise ModelError(
            f"crop model architecture {architecture!r} can't be built by name (there are {names}); "
            "give the network itself as model=."
        )
    return models.get_model(architecture, weights=None, num_classes=num_classes)


def guess_resnet(keys: Iterable[str]) -> str | None:
    """Recognise a torchvision ResNet by its tensor names (without prefix)."""
    names = set(keys)
    if "fc.weight" not in names:
        return None
    blocks = tuple(
        len({k.split(".")[1] for k in names if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)
    )
    return _RESNETS.get(("layer1.0.conv3.weight" in names, blocks))  # type: ignore[arg-type]
