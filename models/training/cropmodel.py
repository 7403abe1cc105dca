"""Train a crop model as a configuration says: `geosweep train cropmodel` and its Python call."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning

from ...catalog.errors import ModelError, TrainingError
from .._checkpoints import load_checkpoint
from .._cropfit import confusion_metrics
from ..cropmodel import CropModel
from ..data.cropsets import is_crop_folder
from .base import BEST, CHECKPOINTS, LAST, WEIGHTS, check_output, fit
from .cropconfig import CropData, CropNetwork, CropTraining
from .trainer import make_trainer

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch.callbacks import Callback

_log = logging.getLogger("geosweep")

MONITOR = "val_macro_accuracy"
"""What chooses the best weights, unless the configuration says otherwise: rare classes count."""


@dataclass(frozen=True)
class TrainedCropModel:
    """What a training gave.

    Parameters
    ----------
    crop_model
        The model, with the weights that were kept.
    path
        Its folder, for `load_crop_model` and jobs; None after a fast run, which writes nothing.
    metrics
        On the validation crops: ``val_accuracy``, ``val_macro_accuracy``, ``val_accuracy_LABEL`` …;
        empty without validation.
    confusion
        Counts of the validation crops, true labels by predicted ones; None without validation.
    """

    crop_model: CropModel
    path: Path | None
    metrics: dict[str, float]
    confusion: pd.DataFrame | None


def train_cropmodel(
    config: CropTraining | Mapping[str, Any] | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    fast_dev_run: bool | int = False,
    callbacks: Sequence[Callback] = (),
    **lightning_args: Any,
) -> TrainedCropModel:
    """Train a crop model.

    Parameters
    ----------
    config
        A configuration file, the same as a mapping, or a `CropTraining`.
    overrides
        Values by dotted key, such as ``{"trainer.max_epochs": 5}``.
    resume
        Go on from the last checkpoint in the output folder.
    overwrite
        Start anew where the output folder holds a training already.
    fast_dev_run
        Run so many batches (True: one) of training and validation, and write nothing.
    callbacks
        More Lightning callbacks.
    **lightning_args
        Arguments of `lightning.Trainer`, over what the configuration says.

    Returns
    -------
    TrainedCropModel
        The weights with the best monitored metric, or the last ones without validation. The output
        folder holds ``model.safetensors``, ``config.json``, ``training.yaml``, ``checkpoints/``,
        ``logs/``, and after validation ``metrics.json``, ``confusion_matrix.csv`` and (where
        matplotlib is installed) ``confusion_matrix.png``.

    Raises
    ------
    GeosweepError
        For a wrong configuration, data or weights, and where training can't go on.
    """
    config = CropTraining.of(config, overrides)
    output = config.output
    if not fast_dev_run:
        check_output(output, resume=resume, overwrite=overwrite)
    lightning.seed_everything(config.trainer.seed, workers=True, verbose=False)
    model = make_model(config.model, config.data)
    load_data(model, config.data, config.trainer.seed)
    if config.model.start is not None:
        go_on_from(model, config.model.start)
    model.optimizer = config.optimizer
    if config.optimizer.backbone_lr is None and not config.model.from_random:
        slower = {"backbone_lr": config.optimizer.lr / 10}
        model.optimizer = config.optimizer.model_copy(update=slower)
    validates = config.data.val is not None
    trainer = make_trainer(
        config.trainer,
        monitor=MONITOR if validates else None,
        fast_dev_run=fast_dev_run,
        callbacks=callbacks,
        **lightning_args,
    )
    fit(trainer, model, output / CHECKPOINTS / LAST if resume else None)
    if fast_dev_run:
        return TrainedCropModel(model.eval(), None, *_measured(model))
    best = output / CHECKPOINTS / BEST
    trainer.strategy.barrier()
    if best.is_file():
        model.load_state_dict(load_checkpoint(best)["state_dict"])
        trainer.validate(model, verbose=False)
    metrics, confusion = _measured(model)
    if trainer.is_global_zero:
        _write(config, model, metrics, confusion, output)
        _log.info("trained crop model: %s", output / WEIGHTS)
    return TrainedCropModel(model.eval(), output, metrics, confusion)


def make_model(config: CropNetwork, data: CropData) -> CropModel:
    """Make the crop model that a configuration describes; its network may wait for the labels."""
    labels = None if data.labels is None else {name: i for i, name in enumerate(data.labels)}
    settings: dict[str, Any] = {
        "model": config.architecture,
        "pretrained": config.pretrained,
        "freeze_norm": not config.from_random if config.freeze_norm is None else config.freeze_norm,
        "label_dict": labels,
        "augment": data.augment,
        "balance": data.balance,
        "batch_size": data.batch_size,
        "num_workers": data.num_workers,
    }
    if config.start is not None:
        start = CropModel.from_pretrained(config.start)
        names = ("resize", "resize_interpolation", "expand", "bands", "num_bands")
        settings |= {name: getattr(start, name) for name in names}
        settings |= {"model": start.architecture, "normalize": (start.mean, start.std)}
        if "bands" in config.settings():
            del settings["num_bands"]
    return CropModel(**settings | config.settings())


def load_data(model: CropModel, data: CropData, seed: int) -> None:
    """Give the crop model the crops that a configuration names."""
    if isinstance(data.train, str) and is_crop_folder(data.train):
        if isinstance(data.val, list):
            raise TrainingError("data.train is a folder of crops, so data.val must be one, too.")
        model.load_from_disk(data.train, data.val, seed=seed)
        return
    model.load_from_annotations(
        data.train,
        data.val,
        label_column=data.label_column,
        per_class=data.per_class,
        min_score=data.min_score,
        seed=seed,
        root_dir=data.root_dir,
        rescale=data.rescale,
    )


def go_on_from(model: CropModel, start: str) -> None:
    """Fill a crop model with another's weights; of the last layer, those of labels that both know.

    Raises
    ------
    ModelError
        If the other's network is another.
    """
    before = CropModel.from_pretrained(start)
    assert model.model is not None and before.model is not None
    own, found = model.model.state_dict(), before.model.state_dict()
    head = list(own)[-2:]  # weight and bias of the classes, in every network that has a name
    rows = [
        (i, before.label_dict[n]) for n, i in model.label_dict.items() if n in before.label_dict
    ]
    for name in own:
        if name in head:
            for new, old in rows:
                own[name][new] = found[name][old]
        elif name not in found or found[name].shape != own[name].shape:
            raise ModelError(
                f"{start}: its network has other shapes (such as {name}); leave out bands and "
                "whatever else changes the network, or start anew."
            )
        else:
            own[name] = found[name]
    model.model.load_state_dict(own)
    known = ", ".join(name for name in model.labels if name in before.label_dict) or "none"
    _log.info("the crop model goes on from %s; labels it knows already: %s", start, known)


def _measured(model: CropModel) -> tuple[dict[str, float], pd.DataFrame | None]:
    import pandas as pd

    if model.confusion is None:
        return {}, None
    metrics = confusion_metrics(model.confusion, model.labels)
    table = pd.DataFrame(model.confusion, index=list(model.labels), columns=list(model.labels))
    return {f"val_{name}": value for name, value in metrics.items()}, table


def _write(
    config: CropTraining,
    model: CropModel,
    metrics: dict[str, float],
    confusion: pd.DataFrame | None,
    output: Path,
) -> None:
    train = config.data.train
    names = [Path(file).name for file in ([train] if isinstance(train, str) else train)]
    particulars = {
        "description": config.model.description,
        "licence": config.model.licence,
        "gsd": config.model.gsd,
        "metrics": metrics,
        "training_data": ", ".join(names),
    }
    model.save_pretrained(output, particulars=particulars)
    config.write()
    if confusion is None:
        return
    content = {"crops": {"train": model.class_counts()}, **metrics}
    (output / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    confusion.to_csv(output / "confusion_matrix.csv", index_label="true")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        _log.info("no confusion_matrix.png: matplotlib is not installed (geosweep[train])")
        return
    from .._eval_plots import draw_confusion

    draw_confusion(confusion, "crop model", output / "confusion_matrix.png")
