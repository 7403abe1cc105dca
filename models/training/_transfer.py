"""Go on from a trained network with other labels: all but the class layers is kept as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ...catalog.errors import ModelError
from .._singleshot import LevelHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


class _ClassLayer(NamedTuple):
    """A layer whose outputs belong to classes.

    Outputs count `anchors` × classes × `values`, where the classes may begin with a background.
    """

    name: str
    anchors: int
    values: int
    background: bool


def transfer(
    old: nn.Module, new: nn.Module, old_labels: Sequence[str], new_labels: Sequence[str]
) -> None:
    """Copy weights into a network that differs in its classes only.

    Parameters
    ----------
    old, new
        Networks of one architecture; `new` is filled, its class layers keep their fresh weights for
        labels that `old` does not know.
    old_labels, new_labels
        Labels by index.

    Raises
    ------
    ModelError
        If the networks differ in more.
    """
    state, own = old.state_dict(), new.state_dict()
    tensors = {}
    for layer in _class_layers(new, len(new_labels)):
        for leaf in ("weight", "bias"):
            key = f"{layer.name}.{leaf}"
            tensors[key] = _rows(layer, state[key], own[key], old_labels, new_labels)
    for key, value in own.items():
        if key in tensors:
            continue
        if key not in state or state[key].shape != value.shape:
            raise ModelError(
                "model.network changes the shape of the network that model.start names (at "
                f"{key}); leave those settings out, or train without start."
            )
        tensors[key] = state[key]
    new.load_state_dict(tensors)


def _class_layers(network: nn.Module, classes: int) -> list[_ClassLayer]:
    layers = []
    for name, module in network.named_modules():
        if isinstance(module, LevelHead):
            last = len(module.classes) - 1
            anchors = module.classes[last].out_channels // classes  # type: ignore[operator]
            layers.append(_ClassLayer(f"{name}.classes.{last}", anchors, 1, False))  # type: ignore[arg-type]
        elif name == "head.classification_head.cls_logits":
            layers.append(_ClassLayer(name, module.out_channels // classes, 1, False))  # type: ignore[operator, arg-type]
        elif name == "roi_heads.box_predictor":
            layers.append(_ClassLayer(f"{name}.cls_score", 1, 1, True))
            layers.append(_ClassLayer(f"{name}.bbox_pred", 1, 4, True))
    return layers


def _rows(
    layer: _ClassLayer,
    old: Tensor,
    new: Tensor,
    old_labels: Sequence[str],
    new_labels: Sequence[str],
) -> Tensor:
    """Return the layer's new weights, with the old ones where a label was known."""
    first = int(layer.background)
    rest = new.shape[1:]
    before = old.reshape(layer.anchors, len(old_labels) + first, layer.values, *rest)
    after = new.clone().reshape(layer.anchors, len(new_labels) + first, layer.values, *rest)
    if layer.background:
        after[:, 0] = before[:, 0]
    for i, label in enumerate(new_labels):
        if label in old_labels:
            after[:, i + first] = before[:, list(old_labels).index(label) + first]
    assert torch.isfinite(after).all()
    return after.reshape(new.shape)
