"""Networks for a CPU: each convolution with what follows it as one call of oneDNN.

torch computes a convolution, its batch norm, an addition and the activation one after the other, each
through the whole of memory; a 1 × 1 convolution in one thread even by a matrix product that is slow on
many CPUs. oneDNN, which torch is built with, does all four in one pass. The calls are those that
torch's compiler emits; no compiler is needed for them.
"""

from __future__ import annotations

import copy
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops.misc import FrozenBatchNorm2d

if TYPE_CHECKING:
    from torch import Tensor

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class _Activation(NamedTuple):
    name: str
    scalars: tuple[float, ...]
    plain: Any


_RELU = _Activation("relu", (), F.relu)
_ACTIVATIONS: dict[Any, _Activation] = {
    nn.ReLU: _RELU,
    F.relu: _RELU,
    torch.relu: _RELU,
    nn.ReLU6: _Activation("hardtanh", (0.0, 6.0), F.relu6),
    nn.Hardswish: _Activation("hardswish", (), F.hardswish),
}


class FusedConv(nn.Module):
    """A convolution, and what is done to its result: another map added, an activation.

    Parameters
    ----------
    conv
        Gives settings, weights and bias.
    norm
        Batch norm after it, folded into the weights.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d | None) -> None:
        super().__init__()
        weight, bias = conv.weight, conv.bias
        if norm is not None:
            mean, variance = norm.running_mean, norm.running_var
            weight, bias = fuse_conv_bn_weights(
                weight,
                bias,
                mean,  # type: ignore[arg-type]
                variance,  # type: ignore[arg-type]
                norm.eps,
                norm.weight,  # type: ignore[arg-type]
                norm.bias,  # type: ignore[arg-type]
            )
        weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.padding, self.stride, self.dilation = map(
            list, (conv.padding, conv.stride, conv.dilation)
        )
        self.groups = conv.groups
        self.activation: _Activation | None = None
        self.native = _available()

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Return activation(conv(x) + other), in the memory of `other` if there is one."""
        if not self.native:
            return self._plain(x, other)
        where = (self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)
        name, scalars, _ = self.activation or ("none", (), None)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *where, name, list(scalars), "")
        after = name if self.activation else None
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, *where, "add", 1.0, after, list(scalars), None
        )

    def _plain(self, x: Tensor, other: Tensor | None) -> Tensor:
        settings: Any = (self.stride, self.padding, self.dilation, self.groups)
        y = F.conv2d(x, self.weight, self.bias, *settings)  # type: ignore[arg-type]
        y = y if other is None else y + other
        return y if self.activation is None else self.activation.plain(y)


class Fused(nn.Module):
    """A network as `fuse` gives it, its tensors' layout and dtype its own affair.

    Parameters
    ----------
    graph
        Its fused graph.
    dtype
        What it computes in; results are float32.
    """

    def __init__(self, graph: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.graph = graph.to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Any:
        """Compute the network on (B, C, H, W)."""
        found = self.graph(images.to(self.dtype).contiguous(memory_format=torch.channels_last))
        return tuple(map(torch.Tensor.float, found)) if isinstance(found, tuple) else found.float()

    def plain(self) -> nn.Module:
        """Return a copy in float32 that any exporter understands: the same, layer by layer."""
        twin = copy.deepcopy(self.graph).float()
        for module in twin.modules():
            if isinstance(module, FusedConv):
                module.native = False
        return twin


def _available() -> bool:
    """Whether this torch has oneDNN's fused calls; where not, the layers are computed one by one."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_convolution_pointwise"
    )


def fuse(network: nn.Module, dtype: torch.dtype = torch.float32) -> Fused:
    """Return a copy of a network for inference on a CPU: the same function up to rounding.

    Parameters
    ----------
    network
        In eval mode; without branches that depend on values (`torch.fx` traces it). Maps one tensor to
        one or a tuple of them.
    dtype
        float32, or bfloat16 to compute in that.
    """
    root = copy.deepcopy(network).eval()
    graph = _Tracer().trace(root)
    module = fx.GraphModule(root, graph)
    layers: dict[str, nn.Module] = dict(module.named_modules())
    for node in list(graph.nodes):
        layer = layers.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Identity | nn.Dropout):
            _replace(node, node.args[0])
    for number, node in enumerate(list(graph.nodes)):
        layer = layers.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d):
            fused = _fuse_one(node, layer, layers)
            # A name of its own: a layer that is called on every level of a pyramid is several nodes.
            node.target = f"fused_{number}"
            module.add_submodule(node.target, fused)
            layers[node.target] = fused
    graph.lint()
    module.recompile()
    module.delete_all_unused_submodules()
    return Fused(module, dtype)


def _fuse_one(node: fx.Node, conv: nn.Conv2d, layers: dict[str, nn.Module]) -> FusedConv:
    """Take over what is done to a convolution's result, and nothing else uses."""
    norm = _only_user(node)
    layer = layers.get(str(norm.target)) if norm is not None else None
    if norm is not None and isinstance(layer, _NORMS):
        _replace(norm, node)
        fused = FusedConv(conv, layer)
    else:
        fused = FusedConv(conv, None)
    addition = _only_user(node)
    if addition is not None and addition.target in _ADDITIONS and not addition.kwargs:
        others = [value for value in addition.args if value is not node]
        if len(others) == 1 and _may_be_overwritten(others[0], node, addition, layers):
            node.args = (*node.args, others[0])
            _replace(addition, node)
    after = _only_user(node)
    if after is not None:
        key = type(layers[str(after.target)]) if after.op == "call_module" else after.target
        fused.activation = _ACTIVATIONS.get(key)
        if fused.activation is not None:
            _replace(after, node)
    return fused


def _may_be_overwritten(
    other: Any, node: fx.Node, addition: fx.Node, layers: dict[str, nn.Module]
) -> bool:
    """Whether a map is a layer's own result, there before `node` and of no use after it."""
    return (
        isinstance(other, fx.Node)
        and isinstance(layers.get(str(other.target)), nn.MaxPool2d | FusedConv)
        and other < node
        and all(user is addition or user < node for user in other.users)
    )


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _replace(node: fx.Node, by: Any) -> None:
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _NORMS) or super().is_leaf_module(m, module_qualified_name)
