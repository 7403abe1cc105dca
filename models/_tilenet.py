"""The tile filter's network: is there anything in this window, seen at reduced resolution?

Early EfficientNet-Lite0 features under a small head that looks at each cell of the feature map,
with the window's mean for context. A window shows an object if its likeliest cell does, and is empty
as far as its least empty cell is: max and min rather than means, so that one small object in a wide
window is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from ..catalog.strict import Block
from ._efficientnet import MEAN, STD, EfficientNetLite0

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = "tilefilter-1"
"""Raised whenever the same weights would give other scores."""


class TileNetConfig(Block):
    """Everything that shapes the network; stored beside its weights.

    Attributes
    ----------
    reduce
        Pixels (along each side) that are averaged into one before the network looks. The smallest
        object should still be some 5 px wide afterwards.
    stride
        Stride of the features in reduced pixels. A cell is `reduce` × `stride` pixels wide.
    hidden
        Width of the head.
    """

    reduce: Annotated[int, Field(ge=1, le=16)] = 2
    stride: Literal[4, 8, 16, 32] = 16
    hidden: Annotated[int, Field(ge=1)] = 64

    @property
    def cell(self) -> int:
        """Side of a cell in pixels of the window."""
        return self.reduce * self.stride


class TileNet(nn.Module):
    """From windows to logits, one for each foreground label and the last for `empty`.

    Parameters
    ----------
    foreground
        Number of foreground labels.
    config
        The network's shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, foreground: int, config: TileNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or TileNetConfig()
        self.foreground = foreground
        self.body = EfficientNetLite0((self.config.stride,))
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The backbone's 0.01 would still remember other images after a short training.
                module.momentum = 0.1
        (channels,) = self.body.channels
        self.local = nn.Conv2d(channels, self.config.hidden, 1)
        self.context = nn.Linear(channels, self.config.hidden)
        self.logits = nn.Conv2d(self.config.hidden, foreground + 1, 1)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def cells(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) in 0–1 to logits (B, labels, h, w), cells of `config.cell` pixels."""
        if self.config.reduce > 1:
            # Pixels beyond the edge don't count, so a size that is no multiple loses nothing.
            x = F.avg_pool2d(x, self.config.reduce, ceil_mode=True, count_include_pad=False)
        (features,) = self.body((x - self.mean) / self.std).values()
        context = self.context(features.mean((2, 3)))[:, :, None, None]
        return self.logits(F.relu(self.local(features) + context))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) in 0–1 to a window's logits (B, labels)."""
        return window_logits(self.cells(x))


def window_logits(cells: Tensor) -> Tensor:
    """Reduce logits of cells (B, labels, h, w) to those of the window (B, labels).

    Foreground: the likeliest cell. Empty, which is last: the least empty cell.
    """
    flat = cells.flatten(2)
    return torch.cat([flat[:, :-1].amax(2), flat[:, -1:].amin(2)], dim=1)
