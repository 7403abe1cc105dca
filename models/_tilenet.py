"""The tile filter's network: is there anything in this window, seen at reduced resolution?

Early EfficientNet-Lite0 features under a small head that looks at each cell of the feature map,
with the window's mean for context. A window shows an object if its likeliest cell does, and is empty
as far as its least empty cell is: max and min rather than means, so that one small object in a wide
window is seen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from ..catalog.errors import ModelError
from ._efficientnet import LEVELS, MEAN, STD, EfficientNetLite0

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

ARCHITECTURE = "tilefilter-1"
"""Raised whenever the same weights would give other scores."""


@dataclass(frozen=True)
class TileNetConfig:
    """Everything that shapes the network; stored beside its weights.

    Parameters
    ----------
    reduce
        Pixels (along each side) that are averaged into one before the network looks: 1, 2 or 4 …
        The smallest object should still be some 5 px wide afterwards.
    stride
        Stride of the features in reduced pixels: 4, 8 or 16. A cell is `reduce` × `stride` pixels of
        the window wide.
    hidden
        Width of the head.

    Raises
    ------
    ModelError
        If a value is none of these.
    """

    reduce: int = 2
    stride: int = 16
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.stride not in LEVELS:
            steps = ", ".join(map(str, LEVELS))
            raise ModelError(f"the tile filter's stride is {self.stride}: give one of {steps}.")
        for name in ("reduce", "hidden"):
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise ModelError(f"the tile filter's {name} is {value}: give 1 or more.")

    @property
    def cell(self) -> int:
        """Side of a cell in pixels of the window."""
        return self.reduce * self.stride

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TileNetConfig:
        """Read what `to_dict` wrote."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(
                f"the tile filter's settings name {unknown[0]}, which this geosweep does not know; "
                "upgrade geosweep."
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


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
