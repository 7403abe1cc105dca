"""Optimizer and schedule, the same for every kind of model: warm-up, then a cosine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Timer
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning
    from torch import nn

    from .config import OptimizerConfig


def configure_optimizers(
    module: lightning.LightningModule, config: OptimizerConfig, backbone: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what a LightningModule's `configure_optimizers` should: optimizer and schedule.

    Parameters
    ----------
    module
        Its trainer tells how long the training is.
    config
        The `optimizer:` block.
    backbone
        Prefixes of the parameters that have `config.backbone_lr`.
    """
    optimizer = make_optimizer(module, config, backbone)
    schedule = LambdaLR(optimizer, lambda _: rate(progress(module.trainer), config.warmup))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimizer(
    module: nn.Module, config: OptimizerConfig, backbone: Sequence[str] = ()
) -> torch.optim.Optimizer:
    """Make the optimizer: up to four groups, backbone or not, decayed or not."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith(tuple(backbone)), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    slow = config.lr if config.backbone_lr is None else config.backbone_lr
    settings = [
        {
            "params": parameters,
            "lr": slow if pretrained else config.lr,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (pretrained, decayed), parameters in groups.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(settings, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(settings, lr=config.lr)


def rate(progress: float, warmup: float) -> float:
    """Return the factor on the peak learning rate when this share of the training is done."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (min(progress, 1.0) - warmup) / (1 - warmup)))


def progress(trainer: lightning.Trainer) -> float:
    """Return the share of a training that is done: in steps or in time, whichever is further."""
    total = trainer.estimated_stepping_batches
    done = trainer.global_step / total if math.isfinite(total) and total > 0 else 0.0
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        limit = callback._duration if isinstance(callback, Timer) else None
        if limit:
            elapsed = callback.time_elapsed() / limit
            # Clocks differ between processes, which must all take the same step.
            done = trainer.strategy.broadcast(max(done, elapsed))
    return min(done, 1.0)
