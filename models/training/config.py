"""What every training configuration shares: how long, on what, and what is kept."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ...catalog.strict import Block


class TrainerConfig(Block):
    """The `trainer:` block of a training configuration.

    Attributes
    ----------
    output
        Folder for checkpoints, logs and the trained model.
    max_epochs, max_steps, max_minutes
        Training ends with whichever comes first; one of them is needed. `max_minutes` is also the
        length of the learning rate's schedule, so that it ends low; counted in steps and epochs
        alone, a training on one device repeats itself exactly.
    precision
        ``fp32``; ``bf16`` or ``fp16`` for mixed precision; ``auto`` for mixed precision on a GPU.
    accelerator, devices, nodes, strategy
        As in Lightning: ``auto``, ``cpu``, ``gpu``; how many on each node; how many nodes; and how
        they work together (``auto`` is DDP where there are several).
    gradient_clip
        Largest norm of the gradient; null for none.
    accumulate
        Batches for each step of the optimizer.
    monitor, mode
        The metric that chooses the best checkpoint, and whether it should be ``max`` or ``min``;
        null for the task's own, and for what the metric's name says.
    early_stopping_patience
        Stop after so many validations without a better `monitor`; null for never.
    ema_decay
        Validate and keep an exponential moving average of the weights; null for the weights
        themselves. 0.99 suits some hundred steps, 0.999 some thousand.
    validate_every
        Epochs between validations.
    save_every
        Steps between checkpoints to resume from; null for one each epoch.
    loggers
        ``csv``, ``tensorboard``, both or none. From Python, ``logger=`` takes any Lightning logger.
    log_every
        Steps between logged losses.
    seed
        Of everything random.
    deterministic
        Refuse operations that are not repeatable on a GPU.
    progress
        Show a progress bar where the output is a terminal.
    """

    output: str = "training"
    max_epochs: int | None = Field(default=20, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = Field(default=1, ge=1)
    strategy: str = "auto"
    gradient_clip: float | None = Field(default=5.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    monitor: str | None = None
    mode: Literal["max", "min"] | None = None
    early_stopping_patience: int | None = Field(default=None, ge=1)
    ema_decay: float | None = Field(default=None, ge=0.0, lt=1.0)
    validate_every: int = Field(default=1, ge=1)
    save_every: int | None = Field(default=None, ge=1)
    loggers: tuple[Literal["csv", "tensorboard"], ...] = ("csv",)
    log_every: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    deterministic: bool = False
    progress: bool = True

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.max_epochs is None and self.max_steps is None and self.max_minutes is None:
            raise ValueError("training would never end; give max_epochs, max_steps or max_minutes")
        return self

    def direction(self, metric: str) -> Literal["max", "min"]:
        """Whether more of `metric` is better: `mode`, or what the metric's name says."""
        return self.mode or ("min" if "loss" in metric or "error" in metric else "max")


class OptimizerConfig(Block):
    """The `optimizer:` block: warm-up, then a cosine down to zero.

    Attributes
    ----------
    name
        ``adamw`` or ``sgd``.
    lr
        Peak learning rate.
    backbone_lr
        That of a pretrained backbone; null for `lr`.
    weight_decay
        Of weights; biases and norms are not decayed.
    momentum
        Of ``sgd``.
    warmup
        Share of the training in which the learning rate rises.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    backbone_lr: float | None = Field(default=None, ge=0)
    weight_decay: float = Field(default=0.02, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup: float = Field(default=0.03, ge=0, lt=1)
