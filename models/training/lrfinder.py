"""The learning rate at which the loss falls fastest."""

from __future__ import annotations

import logging
import tempfile
from typing import TYPE_CHECKING

import lightning
from lightning.pytorch.tuner.tuning import Tuner

from ...catalog.errors import TrainingError
from .trainer import lightning_precision

if TYPE_CHECKING:
    from .detectorconfig import DetectorTraining

_log = logging.getLogger("geosweep")
_STEPS = 60


def suggest_learning_rate(
    config: DetectorTraining,
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
) -> float:
    """Find a learning rate by Smith's range test (https://arxiv.org/abs/1506.01186).

    The rate rises step by step until the loss explodes; where the loss fell fastest is a good peak.
    The module is left as it was.

    Raises
    ------
    TrainingError
        If the loss does not fall at any rate.
    """
    settings = config.trainer
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder,
            accelerator=settings.accelerator,
            devices=1,
            precision=lightning_precision(settings),  # type: ignore[arg-type]
            gradient_clip_val=settings.gradient_clip,
            accumulate_grad_batches=settings.accumulate,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        found = Tuner(trainer).lr_find(
            module,
            datamodule=data,
            min_lr=1e-6,
            max_lr=0.3,
            num_training=_STEPS,
            update_attr=False,
        )
    suggestion = None if found is None else found.suggestion(skip_begin=5, skip_end=3)
    if suggestion is None:
        raise TrainingError(
            "No learning rate lets the loss fall; give optimizer.lr, or check the data with "
            "--show-batch."
        )
    _log.info("learning rate found: %.2g (optimizer.lr is %.2g)", suggestion, config.optimizer.lr)
    return float(suggestion)
