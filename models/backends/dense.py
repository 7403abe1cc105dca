"""The part of a single-stage detector that is worth handing to another engine: its convolutions.

What comes before (normalising, resizing) and after (anchors, decoding, NMS) stays torchvision's, so
that every engine shares it. A level's class logits and box offsets travel as the channels of one map,
which has the level's own height and width: all that torchvision wants to know of a feature map.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from ...catalog.errors import ModelError
from .._fused import Fused, fuse
from .._singleshot import LevelHeads, per_anchor
from .._threads import cpu_threads
from .engines import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_log = logging.getLogger("geosweep")
BOX = 4
"""Numbers that describe a box."""


class DenseNetwork(nn.Module):
    """Backbone, pyramid and head of a RetinaNet, ours or torchvision's.

    Maps normalised images (B, 3, H, W) to one (B, A·(K + 4), h, w) map per level: A anchors at a place
    with K class logits each, then with 4 box offsets each.
    """

    def __init__(self, network: RetinaNet) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.head = network.head

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        levels = self.backbone(images).values()
        return tuple(
            torch.cat([logits, offsets], dim=1)
            for logits, offsets in map(self._outputs, levels, range(len(levels)))
        )

    def _outputs(self, features: Tensor, level: int) -> tuple[Tensor, Tensor]:
        head: Any = self.head
        if hasattr(head, "levels"):  # ours: a head for each level
            own = head.levels[level]
            return own.classes(features), own.boxes(features)
        classes, boxes = head.classification_head, head.regression_head
        return classes.cls_logits(classes.conv(features)), boxes.bbox_reg(boxes.conv(features))


class _Carrier(nn.Module):
    """Stands for a backbone: the engine's maps, keyed by level."""

    def __init__(self, engine: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(i), level) for i, level in enumerate(self.engine(images)))


class Unpack(nn.Module):
    """Stands for a head: maps to the rows that torchvision's anchors are in."""

    def __init__(self, anchors: int, classes: int) -> None:
        super().__init__()
        self.anchors, self.classes = anchors, classes

    def forward(self, levels: list[Tensor]) -> dict[str, Tensor]:
        logits, offsets = [], []
        for level in levels:
            first, second = level.split([self.anchors * self.classes, self.anchors * BOX], dim=1)
            logits.append(per_anchor(first, self.classes))
            offsets.append(per_anchor(second, BOX))
        return {"cls_logits": torch.cat(logits, 1), "bbox_regression": torch.cat(offsets, 1)}


def accelerate(
    network: nn.Module,
    backend: str,
    name: str,
    *,
    precision: str = "auto",
    threads: int | None = None,
    device: torch.device | None = None,
) -> RetinaNet:
    """Return a detection network that has its convolutions computed by another engine.

    Parameters
    ----------
    network
        In eval mode, its batch norms folded.
    backend
        ``openvino``, ``onnx`` or ``compile``.
    name
        For messages.
    precision, threads
        As for `load_detector`.
    device
        Where the network will run; None for the CPU.

    Raises
    ------
    ModelError
        If the network is of another kind.
    """
    dense = dense_part(network, name, backend)
    if backend == "compile":
        dense = dense.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(network, RetinaNet)
    engine = Engine(dense, backend, precision=precision, threads=cpu_threads(threads))
    return with_engine(network, engine)


def fused_for_cpu(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy of a RetinaNet whose layers are fused for a CPU (see `fuse`).

    Parameters
    ----------
    network
        In eval mode. Other networks, and those that another engine computes already, are returned as
        they are; so are those with a head of their own, or a backbone that can't be traced.
    dtype
        What the convolutions are computed in: float32 or bfloat16.
    """
    if not isinstance(network, RetinaNet) or type(network.head) not in (RetinaNetHead, LevelHeads):
        return network
    try:
        fused = fuse(DenseNetwork(network).eval(), dtype)
    except Exception as error:  # tracing fails in many ways; the network runs without it, too
        reason = str(error).strip().split("\n")[0]
        _log.info("the network's layers can't be fused (%s), so it is computed as it is", reason)
        return network
    return with_engine(network, fused)


def dense_part(network: nn.Module, name: str, backend: str) -> nn.Module:
    """Return the convolutions of a network, as `DenseNetwork` computes them.

    Raises
    ------
    ModelError
        If it is not of RetinaNet's kind: a two-stage network's second stage depends on the first's
        boxes.
    """
    if not isinstance(network, RetinaNet):
        raise ModelError(
            f"{name}: is a {type(network).__name__}, which the backend {backend} can't run (it runs "
            "single-shot and RetinaNet detectors); use the backend torch."
        )
    if isinstance(network.backbone, _Carrier) and isinstance(network.backbone.engine, Fused):
        return network.backbone.engine.plain()
    return DenseNetwork(network).eval()


def unpacking(network: RetinaNet) -> Unpack:
    """Return what makes a head's outputs of the maps that `DenseNetwork` gives."""
    if isinstance(network.head, Unpack):
        return network.head
    generator: Any = network.anchor_generator
    anchors = generator.num_anchors_per_location()[0]
    head: Any = network.head
    classes = head.levels[0] if hasattr(head, "levels") else head.classification_head
    return Unpack(anchors, classes.num_classes)


def with_engine(network: RetinaNet, engine: Callable[[Tensor], tuple[Tensor, ...]]) -> RetinaNet:
    """Return a copy of the network that has its maps computed by an engine.

    Parameters
    ----------
    network
        In eval mode.
    engine
        Does what `DenseNetwork.forward` does.
    """
    twin = copy.copy(network)
    parts = {"backbone": _Carrier(engine), "head": unpacking(network)}
    twin._modules = {**network._modules, **parts}
    return twin.eval()
