"""A plain training loop for the single-shot detector: warm-up, cosine, EMA, resumable."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from ._augment import RandomCrops

_log = logging.getLogger("geosweep")


@dataclass(frozen=True)
class FitConfig:
    """The schedule.

    Parameters
    ----------
    steps
        Optimiser steps; with `minutes` only their upper bound.
    minutes
        Wall-clock length of the schedule, None to count steps (which alone is repeatable).
    batch_size
        Crops per step.
    lr, backbone_lr
        Peak learning rates of the new layers and of the pretrained backbone (AdamW).
    warmup
        Share of the schedule spent warming up.
    ema
        Decay of the averaged weights, which are the ones to keep.
    clip
        Largest norm of the gradient.
    save_every
        Steps between checkpoints.
    """

    steps: int = 4000
    minutes: float | None = None
    batch_size: int = 8
    lr: float = 1e-3
    backbone_lr: float = 3e-4
    weight_decay: float = 0.02
    warmup: float = 0.03
    ema: float = 0.99
    clip: float = 5.0
    save_every: int = 200


def fit_detector(
    network: nn.Module, crops: RandomCrops, config: FitConfig, checkpoint: Path
) -> nn.Module:
    """Train `network` in place and return its averaged twin.

    Parameters
    ----------
    network
        From `build_singleshot`.
    crops
        Where the crops come from.
    config
        The schedule.
    checkpoint
        Written every `save_every` steps; if it is there, training goes on from it.

    Returns
    -------
    nn.Module
        The exponential moving average of the network, in eval mode.
    """
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(network, config)
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = AveragedModel(
        network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True
    )
    step, spent = _resume(checkpoint, network, average, optimizer, crops)
    start = time.monotonic() - spent
    network.train()
    while step < config.steps:
        spent = time.monotonic() - start
        progress = spent / 60 / config.minutes if config.minutes else step / config.steps
        if progress >= 1:
            break
        factor = _schedule(progress, config.warmup)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        losses = _step(network, optimizer, crops, config)
        average.update_parameters(network)
        step += 1
        if step % 20 == 0:
            text = " ".join(f"{k} {v:.4f}" for k, v in losses.items())
            _log.info("step %d, %.1f min, lr ×%.3f: %s", step, spent / 60, factor, text)
        if step % config.save_every == 0:
            _save(checkpoint, network, average, optimizer, crops, step, time.monotonic() - start)
    _save(checkpoint, network, average, optimizer, crops, step, time.monotonic() - start)
    return average.module.eval()


def _optimizer(network: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        key = (name.startswith("backbone.body"), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.backbone_lr if pretrained else config.lr,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (pretrained, decayed), parameters in groups.items()
        ]
    )


def _schedule(progress: float, warmup: float) -> float:
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, crops: RandomCrops, config: FitConfig
) -> dict[str, float]:
    images, targets = [], []
    for _ in range(config.batch_size):
        pixels, boxes = crops.sample()
        images.append(pixels)
        targets.append({"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)})
    losses = network(images, targets)
    total = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    optimizer.step()
    return {name: float(value.detach()) for name, value in losses.items()}


def _save(
    path: Path,
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    crops: RandomCrops,
    step: int,
    spent: float,
) -> None:
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "crops": crops.rng.bit_generator.state,
        "torch_rng": torch.get_rng_state(),
        "step": step,
        "spent": spent,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _resume(
    path: Path,
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    crops: RandomCrops,
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state: dict[str, Any] = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    crops.rng.bit_generator.state = state["crops"]
    torch.set_rng_state(state["torch_rng"])
    _log.info("going on from %s at step %d", path, state["step"])
    return state["step"], state["spent"]
