"""`train_tilefilter`: from labelled boxes to a tile filter with a threshold that keeps the objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning

from ...catalog.errors import ModelError
from .._backbones import LITE0, load_backbone
from .._checkpoints import load_checkpoint, read_state, source_metadata
from .._sources import FactorySource, find_source
from .._tilenet import TileNet, TileNetConfig
from ..data.datamodule import DetectionDataModule
from ..loading import load_detector
from ..tilefilter import TileFilter
from ._tilevalidation import check_objects, choose_on, seconds_per_window, validate_tilefilter
from .base import BEST, CHECKPOINTS, LAST, WEIGHTS, check_output, fit
from .tileconfig import TileFilterTraining, TileModel
from .tilemodule import TileFilterModule
from .trainer import make_trainer

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from ..data.dataset import WindowDataset
    from ..tilethreshold import TileThreshold

_log = logging.getLogger("geosweep")


@dataclass(frozen=True)
class TrainedTileFilter:
    """A trained tile filter and what was measured.

    Parameters
    ----------
    tile_filter
        The filter, with its threshold.
    threshold
        How the threshold was chosen, and what it loses and spares on the validation windows.
    path
        The file, for `load_tile_filter` and jobs; None after a fast run, which writes nothing.
    seconds, detector_seconds
        Per validation window: the filter's, and that of the detector to compare with, if any.
    """

    tile_filter: TileFilter
    threshold: TileThreshold
    path: Path | None
    seconds: float
    detector_seconds: float | None

    @property
    def speed_up(self) -> float | None:
        """How much less time filter and detector take than the detector alone, on such windows."""
        if self.detector_seconds is None:
            return None
        kept = 1 - self.threshold.skipped_share
        return self.detector_seconds / (self.seconds + kept * self.detector_seconds)

    def summary(self) -> dict[str, str]:
        """What a user wants to see, by name."""
        found = self.threshold
        rows = {
            "empty threshold": f"{found.threshold:.4f}",
            "windows skipped": f"{found.skipped} of {found.windows} ({found.skipped_share:.1%})",
            "objects lost": f"{found.lost} of {found.objects} ({found.lost_share:.2%})",
            "time per window": f"{self.seconds * 1e3:.1f} ms",
        }
        if self.detector_seconds is not None:
            rows["detector"] = f"{self.detector_seconds * 1e3:.1f} ms"
            rows["speed-up on such windows"] = f"{self.speed_up:.2f}"
        rows["file"] = str(self.path or "none written (--fast-dev-run)")
        return rows


def train_tilefilter(
    config: TileFilterTraining | Mapping[str, Any] | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    fast_dev_run: bool | int = False,
    train: Any = None,
    val: Any = None,
    callbacks: Sequence[Callback] = (),
    **lightning_args: Any,
) -> TrainedTileFilter:
    """Train a tile filter on labelled images, and choose its threshold on held-out ground.

    Parameters
    ----------
    config
        A configuration file, the same as a mapping, or a `TileFilterTraining`.
    overrides
        Values by dotted key, such as ``{"trainer.max_epochs": 5}``.
    resume
        Go on from the last checkpoint in the output folder.
    overwrite
        Start anew where the output folder holds a training already.
    fast_dev_run
        Run so many batches (True: one) of training and validation, and write nothing.
    train, val
        Annotations as frames, in place of the files in `config.data`.
    callbacks
        More Lightning callbacks.
    **lightning_args
        Arguments of `lightning.Trainer`, over what the configuration says.

    Returns
    -------
    TrainedTileFilter
        The weights with the least ``val_loss``, or the last ones if training ended before the first
        validation. The output folder holds ``model.safetensors``, ``training.yaml``,
        ``checkpoints/`` and ``logs/``.

    Raises
    ------
    GeosweepError
        For a wrong configuration, data or weights, and where training can't go on.
    """
    config = TileFilterTraining.of(config, overrides)
    output = config.output
    if not fast_dev_run:
        check_output(output, resume=resume, overwrite=overwrite)
    lightning.seed_everything(config.trainer.seed, workers=True, verbose=False)
    frames = {name: frame for name, frame in (("train", train), ("val", val)) if frame is not None}
    data = DetectionDataModule.from_config(config.data, seed=config.trainer.seed, **frames)
    data.setup()
    dataset = data.val_dataset
    assert dataset is not None  # `TileData.val` is required
    check_objects(dataset)
    network = start_network(config.model, data.labels)
    module = TileFilterModule(network, config.optimizer)
    trainer = make_trainer(
        config.trainer,
        monitor="val_loss",
        fast_dev_run=fast_dev_run,
        callbacks=callbacks,
        **lightning_args,
    )
    fit(trainer, module, output / CHECKPOINTS / LAST if resume else None, datamodule=data)
    best = output / CHECKPOINTS / BEST
    if not fast_dev_run:
        trainer.strategy.barrier()
        if best.is_file():
            module.load_state_dict(load_checkpoint(best)["state_dict"])
    trained = _with_threshold(config, network, data.labels, dataset)
    if fast_dev_run:
        return trained
    path = output / WEIGHTS
    if trainer.is_global_zero:
        trained.tile_filter.save(path)
        config.write()
        _log.info("trained tile filter: %s", path)
    return replace(trained, path=path)


def _with_threshold(
    config: TileFilterTraining, network: TileNet, labels: Sequence[str], dataset: WindowDataset
) -> TrainedTileFilter:
    windows, train = config.data.windows, config.data.train
    tile_filter = TileFilter(
        labels,
        network=network,
        window_size=windows.size,
        gsd=windows.resolution or config.gsd,
    )
    validation = validate_tilefilter(tile_filter, dataset)
    threshold, tile_filter.label_thresholds = choose_on(validation, config.threshold)
    tile_filter.empty_threshold = threshold.threshold
    seconds, detector_seconds = seconds_per_window(tile_filter.scores, dataset), None
    if config.compare is not None:
        detector = load_detector(config.compare, device=tile_filter.device)
        detector_seconds = seconds_per_window(detector.detect, dataset)
    names = [Path(file).name for file in ([train] if isinstance(train, str) else train)]
    tile_filter.details = {
        "description": config.description or f"Tile filter for {', '.join(labels)}",
        "licence": config.licence,
        "training_data": ", ".join(names),
        "metrics": {"validation": threshold.to_dict(), "seconds_per_window": seconds},
    }
    return TrainedTileFilter(tile_filter, threshold, None, seconds, detector_seconds)


def start_network(config: TileModel, labels: Sequence[str]) -> TileNet:
    """Build the network, with the weights that `config.init` names.

    Raises
    ------
    ModelError
        If they can't be found, or have no EfficientNet-Lite0 backbone.
    """
    shape = TileNetConfig(**config.model_dump(exclude={"init"}))
    network = TileNet(len(labels), shape)
    if config.init is None:
        return network
    if config.init == "imagenet":
        load_backbone(network.body, LITE0, config.init)
        return network
    source = find_source(config.init)
    if isinstance(source, FactorySource):
        raise ModelError(f"{config.init}: is an import path; model.init must name weights.")
    state, _ = read_state(source)
    own = network.state_dict()
    metadata = source_metadata(source)
    if metadata.get("kind") == "tilefilter" and metadata["labels"][:-1] == list(labels):
        found = state
    else:  # other labels: another head
        stem = "backbone.body." if metadata.get("kind") == "detector" else "body."
        found = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith(stem)}
    found = {k: v for k, v in found.items() if k in own and v.shape == own[k].shape}
    lacking = [k for k in own if k.startswith("body.") and k not in found and "num_batch" not in k]
    if lacking:
        raise ModelError(
            f"{config.init}: has no EfficientNet-Lite0 backbone to start from (it lacks "
            f"{lacking[0]}); name geosweep/tree, a tile filter, imagenet or null."
        )
    network.load_state_dict(found, strict=False)
    _log.info("the tile filter starts from %s: %d of %d tensors", config.init, len(found), len(own))
    return network
