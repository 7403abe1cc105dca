"""A Lightning trainer as a configuration describes it, the same for every kind of model."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from ...catalog.errors import TrainingError
from .base import BEST, CHECKPOINTS, LAST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import TrainerConfig

_log = logging.getLogger("geosweep")


def make_trainer(
    config: TrainerConfig,
    *,
    monitor: str | None = None,
    fast_dev_run: bool | int = False,
    callbacks: Sequence[Callback] = (),
    **lightning_args: Any,
) -> lightning.Trainer:
    """Make a Lightning trainer.

    Parameters
    ----------
    config
        The `trainer:` block.
    monitor
        Metric that chooses the best checkpoint where `config.monitor` names none. Without either
        (nothing to validate on) only the last checkpoint is kept.
    fast_dev_run
        Run so many batches (True: one) of training and validation, and write nothing.
    callbacks
        Besides those for checkpoints, early stopping and averaging.
    **lightning_args
        Any argument of `lightning.Trainer`, over what `config` says; ``logger=`` replaces the
        configured loggers.

    Returns
    -------
    lightning.Trainer
        Checkpoints go to ``OUTPUT/checkpoints/best.ckpt`` and ``last.ckpt``.

    Raises
    ------
    TrainingError
        If a device, precision or logger is not available here.
    """
    output = Path(config.output).expanduser()
    monitor = config.monitor or monitor
    arguments: dict[str, Any] = {
        "default_root_dir": str(output),
        "max_epochs": -1 if config.max_epochs is None else config.max_epochs,
        "max_steps": -1 if config.max_steps is None else config.max_steps,
        "max_time": None if config.max_minutes is None else timedelta(minutes=config.max_minutes),
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.nodes,
        "strategy": config.strategy,
        "precision": lightning_precision(config),
        "gradient_clip_val": config.gradient_clip,
        "accumulate_grad_batches": config.accumulate,
        "check_val_every_n_epoch": config.validate_every,
        "log_every_n_steps": config.log_every,
        "deterministic": config.deterministic,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": config.progress and sys.stderr.isatty(),
        "fast_dev_run": fast_dev_run,
        **lightning_args,
    }
    if not fast_dev_run:
        arguments.setdefault("logger", _loggers(config, output))
    kept = [*callbacks, EpochLog()]
    if config.max_minutes is None:
        kept.append(Timer())  # counts on in a resumed training; `max_time` brings its own
    if arguments.get("logger"):
        kept.append(LearningRateMonitor("step"))
    if not fast_dev_run:
        kept += _checkpoints(config, output / CHECKPOINTS, monitor)
        if config.early_stopping_patience is not None and monitor is not None:
            kept.append(
                EarlyStopping(
                    monitor,
                    mode=config.direction(monitor),
                    patience=config.early_stopping_patience,
                    check_finite=False,
                )
            )
    if config.ema_decay is not None:
        kept.append(EMAWeightAveraging(decay=config.ema_decay))
    try:
        return lightning.Trainer(callbacks=kept, **arguments)
    except (MisconfigurationException, ValueError, RuntimeError, ModuleNotFoundError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0].rstrip(".")
        raise TrainingError(
            f"No trainer for accelerator {config.accelerator}, devices {config.devices} and "
            f"strategy {config.strategy} ({reason}); change these keys under trainer."
        ) from error


def lightning_precision(config: TrainerConfig) -> str:
    """Return Lightning's name of the precision; ``auto`` looks whether there is a GPU.

    Raises
    ------
    TrainingError
        For fp16 on a CPU.
    """
    cuda = config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if config.precision == "auto":
        if not cuda:
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    if config.precision == "fp16" and not cuda:
        raise TrainingError("trainer.precision is fp16, which needs a GPU; say auto, fp32 or bf16.")
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[config.precision]


def _loggers(config: TrainerConfig, output: Path) -> list[Logger]:
    loggers: list[Logger] = []
    for name in config.loggers:
        try:
            made = CSVLogger if name == "csv" else TensorBoardLogger
            loggers.append(made(str(output), name="logs", version=_free(output / "logs", name)))
        except ModuleNotFoundError as error:
            raise TrainingError(
                f"The logger {name} needs a package that is not installed ({error}); run "
                "`pip install 'geosweep[train]'` or leave it out of trainer.loggers."
            ) from error
    return loggers


def _free(folder: Path, name: str) -> str:
    """Return `name`, or that with a number: a resumed training keeps the logs of the first part."""
    numbered = (f"{name}-{i}" if i > 1 else name for i in itertools.count(1))
    return next(free for free in numbered if not (folder / free).exists())


def _checkpoints(config: TrainerConfig, folder: Path, monitor: str | None) -> list[Callback]:
    kept: list[Callback] = []
    if monitor is not None:
        kept.append(
            ModelCheckpoint(
                folder,
                BEST.removesuffix(".ckpt"),
                monitor=monitor,
                mode=config.direction(monitor),
                enable_version_counter=False,
            )
        )
    kept.append(
        ModelCheckpoint(
            folder,
            LAST.removesuffix(".ckpt"),
            every_n_train_steps=config.save_every,
            save_on_train_epoch_end=config.save_every is None,
            enable_version_counter=False,
        )
    )
    return kept


class EpochLog(Callback):
    """One line in the log for each epoch: what was measured, and how long it took."""

    def __init__(self) -> None:
        self._start = 0.0

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if not trainer.is_global_zero:
            return
        values = ", ".join(
            f"{name} {float(value):.3g}"
            for name, value in sorted(trainer.callback_metrics.items())
            if not name.endswith(("_step", "_epoch"))
        )
        last = trainer.max_epochs if trainer.max_epochs not in (None, -1) else "–"
        _log.info(
            "epoch %d of %s, step %d, %.0f s: %s",
            trainer.current_epoch + 1,
            last,
            trainer.global_step,
            time.monotonic() - self._start,
            values or "nothing measured",
        )
