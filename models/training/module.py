"""A detector that can be trained: torchvision-style networks as a LightningModule."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import lightning
import torch

from ...catalog.errors import TrainingError
from .._architectures import read_network
from .._checkpoints import load_strictly, read_state, source_metadata, without_prefix
from .._describe import describe
from .._weights import METADATA_KEY, write_weights
from ..detector import TorchDetector, fold_batch_norm, keep_boxes_exact, set_limits
from ..info import ModelInfo
from ._detectionmetric import DetectionMetric
from ._start import find_weights, start_network
from .config import OptimizerConfig
from .optimizer import configure_optimizers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from .._netconfig import NetworkConfig
    from .detectorconfig import ModelConfig

    Batch = tuple[list[Tensor], list[dict[str, Any]]]

CUSTOM = "custom"
"""Architecture of networks that geosweep can't build by itself."""
MONITOR = "val_ap40"
"""What chooses the best checkpoint, unless `trainer.monitor` says otherwise."""
_LOW_SCORE = 0.02
"""Boxes from here on count for average precision."""


class DetectorModule(lightning.LightningModule):
    """A detection network, its labels and its thresholds, to be trained by a Lightning trainer.

    Build one from settings with `from_config`, from weights with `load`, or from any network that
    keeps torchvision's detection convention.

    Parameters
    ----------
    network
        Takes a list of float32 (3, H, W) images in 0–1; in training also targets with ``boxes`` and
        ``labels``, and returns a dict of losses; else a dict of boxes, labels and scores for each
        image. Labels count from 0: there is no background.
    labels
        Label names by index.
    architecture, config
        What `load_detector` builds the network from; ``custom`` if it can't.
    score_threshold, nms_iou
        The detector's own, stored with the weights.
    window_size, gsd
        What it is trained on: side of the windows in pixels, metres per pixel.
    optimizer
        The `optimizer:` block.
    metadata
        More to store with the weights, such as ``description``, ``licence``, ``training_data``.

    Notes
    -----
    Logs the losses as ``train_loss`` and ``train_…``, and after each validation ``val_ap40``,
    ``val_ap50`` (average precision, mean over the labels), ``val_precision``, ``val_recall`` and
    ``val_f1`` (at `score_threshold`, IoU 0.4). Validation is over windows: objects in two of them
    count twice.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: Sequence[str],
        *,
        architecture: str = CUSTOM,
        config: NetworkConfig | None = None,
        score_threshold: float = 0.3,
        nms_iou: float = 0.5,
        window_size: int | None = 400,
        gsd: float | None = None,
        optimizer: OptimizerConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not labels or len(set(labels)) != len(labels):
            raise TrainingError(f"labels are {list(labels)}: give each label once, at least one.")
        if architecture != CUSTOM:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        keep_boxes_exact(network)
        self.model = network
        self.labels = tuple(labels)
        self.architecture, self.config = architecture, config
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.window_size, self.gsd = window_size, gsd
        self.optimizer_config = optimizer or OptimizerConfig()
        self.extra = dict(metadata or {})
        self.lr = self.optimizer_config.lr
        self.choose_score = False
        """Whether `score_threshold` is to become the score with the best F1 in validation."""
        self.validated_at = -1
        """Step of the last validation."""
        self._metric = DetectionMetric(len(self.labels), score_threshold)

    @classmethod
    def from_config(
        cls, config: ModelConfig, labels: Sequence[str], *, optimizer: OptimizerConfig | None = None
    ) -> Self:
        """Build a network as a `model:` block says, with pretrained weights where it names some.

        Raises
        ------
        ModelError, TrainingError
            If weights can't be found or don't fit, or a setting is wrong.
        """
        start = start_network(config, labels)
        module = cls(
            start.network,
            labels,
            architecture=start.architecture,
            config=start.config,
            score_threshold=start.score_threshold,
            nms_iou=start.nms_iou,
            window_size=start.window_size,
            gsd=start.gsd,
            optimizer=optimizer,
            metadata=start.metadata,
        )
        module.choose_score = config.score_threshold == "best"
        return module

    @classmethod
    def load(cls, path: str | Path, network: nn.Module | None = None, **settings: Any) -> Self:
        """Load what `save` or a checkpoint of Lightning's holds, to train on or to predict.

        Parameters
        ----------
        path
            A safetensors file, a folder with one, or a ``.ckpt``.
        network
            Needed where the network was the user's own: one of the same shape, to be filled.
        **settings
            Arguments of the class, over those in the file.

        Raises
        ------
        ModelError
            If the file can't be read or does not fit the network.
        """
        source = find_weights(str(path))
        info = describe(source)
        metadata = source_metadata(source)
        score, nms = float(info.score_threshold or 0), float(info.nms_iou or 0)
        config = None
        if network is None:
            network, config = read_network(source, info, score=score, nms=nms)
        else:
            load_strictly(network, without_prefix(read_state(source)[0]), source.name)
        stored = {
            "architecture": info.architecture,
            "config": config,
            "score_threshold": score,
            "nms_iou": nms,
            "window_size": info.window_size,
            "gsd": info.gsd,
            "metadata": {k: v for k, v in metadata.items() if k not in _OWN_KEYS},
        }
        return cls(network, info.labels, **{**stored, **settings})

    @property
    def label_dict(self) -> dict[str, int]:
        """Index of each label."""
        return {label: i for i, label in enumerate(self.labels)}

    def metadata(self) -> dict[str, Any]:
        """Return what is stored with the weights, JSON-ready."""
        transform = getattr(self.model, "transform", None)
        normalize = transform and [list(transform.image_mean), list(transform.image_std)]
        return {
            **self.extra,
            "kind": "detector",
            "architecture": self.architecture,
            "config": self.config.to_dict() if self.config is not None else {},
            "labels": list(self.labels),
            "score_threshold": self.score_threshold,
            "nms_iou": self.nms_iou,
            "window_size": self.window_size,
            "gsd": self.gsd,
            "normalize": normalize,
        }

    def detector(
        self, *, device: str | None = "cpu", threads: int | None = None, name: str = "trained"
    ) -> TorchDetector:
        """Return the detector as it stands, a copy: the one that `load_detector` would make of it.

        Parameters
        ----------
        device, threads
            As for `load_detector`.
        name
            What it is called in results.
        """
        info = ModelInfo(
            name=name,
            version="unsaved",
            kind="detector",
            labels=self.labels,
            architecture=self.architecture,
            window_size=self.window_size,
            gsd=self.gsd,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
        )
        network = copy.deepcopy(self.model).to("cpu")
        network = set_limits(network, score=self.score_threshold, nms=self.nms_iou)
        return TorchDetector(fold_batch_norm(network.eval()), info, device=device, threads=threads)

    def save(self, path: str | Path, *, half: bool = False) -> Path:
        """Write weights, labels, thresholds and all else that predictions need into one file.

        Parameters
        ----------
        path
            A ``.safetensors`` file, or a folder in which ``model.safetensors`` is written.
        half
            Store 16-bit floats: half the size, scores differ in the third digit or so. Otherwise
            predictions are the same to the bit.

        Returns
        -------
        Path
            The file, for `load_detector` and jobs.
        """
        path = Path(path).expanduser()
        file = path if path.suffix == ".safetensors" else path / "model.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_weights(file, self.model.state_dict(), self.metadata(), half=half)
        return file

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        metrics = {
            name: float(value)
            for name, value in self.trainer.callback_metrics.items()
            if name.startswith("val_")
        }
        checkpoint[METADATA_KEY] = {**self.metadata(), "metrics": metrics}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint.get(METADATA_KEY, {})
        if stored and tuple(stored["labels"]) != self.labels:
            raise TrainingError(
                f"The checkpoint is of labels {', '.join(stored['labels'])}, but the training has "
                f"{', '.join(self.labels)}; give data.labels as they were, or start anew."
            )

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detect with the network as it stands, with its thresholds."""
        network = set_limits(self.model, score=self.score_threshold, nms=self.nms_iou)
        return network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = batch
        losses = self.model(images, targets)
        total = torch.stack(list(losses.values())).sum()
        size = len(images)
        named = {"train_loss": total, **{f"train_{name}": value for name, value in losses.items()}}
        if not torch.isfinite(total):
            raise TrainingError(
                f"The loss is {float(total)} at step {self.global_step}; lower optimizer.lr or set "
                "trainer.gradient_clip."
            )
        self.log_dict(
            {k: v.detach() for k, v in named.items()},
            on_step=True,
            on_epoch=True,
            prog_bar=False,
            batch_size=size,
            sync_dist=True,
        )
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, targets = batch
        low = min(_LOW_SCORE, self.score_threshold)
        network = set_limits(self.model, score=low, nms=self.nms_iou)
        self._metric.update(network(images), targets)

    def on_validation_epoch_end(self) -> None:
        self.validated_at = self.trainer.global_step
        figures = self._metric.compute()
        self._metric.reset()
        self.log_dict(
            {f"val_{name}": value for name, value in figures.items()}, prog_bar=True, sync_dist=True
        )

    def configure_optimizers(self) -> Any:
        config = self.optimizer_config
        if self.lr != config.lr:  # as a learning-rate finder sets it
            ratio = self.lr / config.lr
            slow = config.backbone_lr
            config = config.model_copy(update={"lr": self.lr, "backbone_lr": slow and slow * ratio})
        return configure_optimizers(self, config, ("model.backbone.body.",))


_OWN_KEYS = {
    "format",
    "kind",
    "architecture",
    "config",
    "labels",
    "score_threshold",
    "nms_iou",
    "window_size",
    "gsd",
    "normalize",
}
"""Of the metadata, what the class has attributes for."""
