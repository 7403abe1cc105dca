"""Train a detector as a configuration says: `geosweep train detector` and its Python call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.callbacks import Timer

from .._checkpoints import load_checkpoint, without_prefix
from .._weights import METADATA_KEY
from ..data.datamodule import DetectionDataModule
from .base import BEST, CHECKPOINTS, LAST, WEIGHTS, check_output, fit
from .detectorconfig import DetectorTraining
from .lrfinder import suggest_learning_rate
from .module import MONITOR, DetectorModule
from .trainer import make_trainer

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

_log = logging.getLogger("geosweep")


@dataclass(frozen=True)
class TrainedDetector:
    """What a training gave.

    Parameters
    ----------
    path
        Weights for `load_detector` and jobs; None after a fast run, which writes nothing.
    metrics
        Of the weights that were kept, on the validation windows: ``val_ap40``, ``val_ap50``,
        ``val_precision``, ``val_recall``, ``val_f1``; empty without validation.
    labels
        Label names by index.
    """

    path: Path | None
    metrics: dict[str, float]
    labels: tuple[str, ...]


def train_detector(
    config: DetectorTraining | Mapping[str, Any] | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    fast_dev_run: bool | int = False,
    find_lr: bool = False,
    train: Any = None,
    val: Any = None,
    callbacks: Sequence[Callback] = (),
    **lightning_args: Any,
) -> TrainedDetector:
    """Train a detector.

    Parameters
    ----------
    config
        A configuration file, the same as a mapping, or a `DetectorTraining`.
    overrides
        Values by dotted key, such as ``{"trainer.max_epochs": 5}``.
    resume
        Go on from the last checkpoint in the output folder.
    overwrite
        Start anew where the output folder holds a training already.
    fast_dev_run
        Run so many batches (True: one) of training and validation, and write nothing.
    find_lr
        Find the learning rate first (`suggest_learning_rate`) and train with it.
    train, val
        Annotations as frames, in place of the files in `config.data`.
    callbacks
        More Lightning callbacks.
    **lightning_args
        Arguments of `lightning.Trainer`, over what the configuration says, such as ``logger=``.

    Returns
    -------
    TrainedDetector
        The weights with the best monitored metric, or the last ones without validation. The output
        folder holds ``model.safetensors``, ``training.yaml``, ``checkpoints/`` and ``logs/``.

    Raises
    ------
    GeosweepError
        For a wrong configuration, data or weights, and where training can't go on.
    """
    config = DetectorTraining.of(config, overrides)
    output = config.output
    if not fast_dev_run:
        check_output(output, resume=resume, overwrite=overwrite)
    data, module = prepare(config, train=train, val=val)
    if find_lr and not resume:
        module.lr = suggest_learning_rate(config, module, data)
    trainer = make_trainer(
        config.trainer,
        monitor=None if data.val_frame is None else MONITOR,
        fast_dev_run=fast_dev_run,
        callbacks=callbacks,
        **lightning_args,
    )
    fit(trainer, module, output / CHECKPOINTS / LAST if resume else None, datamodule=data)
    if fast_dev_run:
        return TrainedDetector(None, _measured(trainer), module.labels)
    metrics = _keep_best(trainer, module, data, config)
    path = output / WEIGHTS
    if trainer.is_global_zero:
        module.extra |= {"metrics": metrics, "training": _story(trainer, config)}
        module.save(path)
        config.write()
        _log.info("trained detector: %s", path)
    return TrainedDetector(path, metrics, module.labels)


def prepare(
    config: DetectorTraining, *, train: Any = None, val: Any = None
) -> tuple[DetectionDataModule, DetectorModule]:
    """Read the annotations and build the network, the same for the same seed."""
    lightning.seed_everything(config.trainer.seed, workers=True, verbose=False)
    frames = {name: frame for name, frame in (("train", train), ("val", val)) if frame is not None}
    data = DetectionDataModule.from_config(config.data, seed=config.trainer.seed, **frames)
    module = DetectorModule.from_config(config.model, data.labels, optimizer=config.optimizer)
    windows = config.data.windows
    module.window_size = windows.size or module.window_size
    module.gsd = config.model.gsd or windows.resolution or module.gsd
    files = [config.data.train] if isinstance(config.data.train, str) else config.data.train
    module.extra["training_data"] = ", ".join(Path(file).name for file in files)
    return data, module


def draw_batch(
    config: DetectorTraining | Mapping[str, Any] | str | Path,
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    train: Any = None,
) -> Path:
    """Draw the first training batch, augmented, with its boxes, to a PNG file."""
    from ..data.showbatch import show_batch

    config = DetectorTraining.of(config, overrides)
    frames = {} if train is None else {"train": train}
    data = DetectionDataModule.from_config(config.data, seed=config.trainer.seed, **frames)
    show_batch(next(iter(data.train_dataloader())), data.labels, path)
    return Path(path)


def _keep_best(
    trainer: lightning.Trainer,
    module: DetectorModule,
    data: DetectionDataModule,
    config: DetectorTraining,
) -> dict[str, float]:
    """Leave the module with the better of the last weights and the best checkpoint's.

    Returns what was measured of them.
    """
    if data.val_frame is None:
        return {}
    if module.validated_at != trainer.global_step:
        # Ended by steps or by the clock, between two validations.
        trainer.validate(module, datamodule=data, verbose=False)
    metrics = _measured(trainer)
    best = config.output / CHECKPOINTS / BEST
    trainer.strategy.barrier()
    if best.is_file():
        content = load_checkpoint(best)
        stored: dict[str, float] = content[METADATA_KEY]["metrics"]
        monitor = config.trainer.monitor or MONITOR
        sign = 1 if config.trainer.direction(monitor) == "max" else -1
        if monitor not in metrics or sign * stored[monitor] >= sign * metrics[monitor]:
            module.model.load_state_dict(without_prefix(content["state_dict"]))
            metrics = stored
    if module.choose_score:
        module.score_threshold = metrics["val_best_score"]
    return metrics


def _measured(trainer: lightning.Trainer) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in sorted(trainer.callback_metrics.items())
        if name.startswith("val_")
    }


def _story(trainer: lightning.Trainer, config: DetectorTraining) -> dict[str, Any]:
    timer = next(c for c in trainer.callbacks if isinstance(c, Timer))  # type: ignore[attr-defined]
    return {
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "minutes": round(timer.time_elapsed() / 60, 1),
        "batch_size": config.data.batch_size,
        "seed": config.trainer.seed,
        "processes": trainer.world_size,
    }
