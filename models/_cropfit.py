"""The part of CropModel that trains: losses, metrics, Lightning's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import lightning
import numpy as np
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from ..catalog.errors import ModelError
from ._cropdata import CropModelData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from .info import ModelInfo
    from .training.config import OptimizerConfig


class TrainableCropModel(CropModelData):
    """Lightning's view of a crop model; see `CropModel`.

    Attributes
    ----------
    lr, optimizer
        Learning rate of Adam; the `optimizer:` block of a training configuration, in its place.
    freeze_norm
        Whether batch norms keep their statistics in training.
    confusion
        int64 (classes, classes), true by predicted: the last validation's. None before one.
    """

    info: ModelInfo | None
    lr: float
    freeze_norm: bool

    def __init__(self) -> None:
        super().__init__()
        self.confusion: NDArray[np.int64] | None = None
        self.optimizer: OptimizerConfig | None = None
        self._matrix: MulticlassConfusionMatrix | None = None

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or back; with `freeze_norm` batch norms stay as in prediction."""
        super().train(mode)
        if mode and self.freeze_norm:
            for layer in self.modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch of crops and class indices."""
        crops, classes = batch
        loss = self._loss(self(crops), classes)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Log ``val_loss``, and count the batch into the confusion matrix."""
        crops, classes = batch
        logits = self(crops)
        loss = self._loss(logits, classes)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(classes), sync_dist=True)
        if self._matrix is None or self._matrix.num_classes != len(self.labels):
            self._matrix = MulticlassConfusionMatrix(len(self.labels)).to(self.device)
        self._matrix.update(logits.argmax(1), classes)
        return loss

    def on_validation_epoch_end(self) -> None:
        """Log ``val_accuracy`` and its like from the epoch's confusion matrix."""
        if self._matrix is None:
            return
        self.confusion = self._matrix.compute().cpu().numpy()
        self._matrix.reset()
        for name, value in confusion_metrics(self.confusion, self.labels).items():
            self.log(f"val_{name}", value, prog_bar=name == "accuracy", sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return class probabilities of a batch of crops, with or without class indices."""
        crops = batch[0] if isinstance(batch, (list, tuple)) else batch
        return F.softmax(self(crops).float(), dim=1)

    def _loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        if logits.ndim != 2 or logits.shape[1] != len(self.labels):
            raise ModelError(
                f"The network gives {tuple(logits.shape)} for {len(classes)} crops, expected "
                f"{len(self.labels)} numbers for each ({', '.join(self.labels[:5])})."
            )
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        return F.cross_entropy(logits, classes, weight=weights)

    def configure_optimizers(self) -> Any:
        """Return Adam at `lr`, or what `optimizer` says."""
        if self.optimizer is None:
            return torch.optim.Adam(self.parameters(), lr=self.lr)
        from .training.optimizer import configure_optimizers

        learned = {name.split(".")[1] for name, _ in self.named_parameters()} - {"fc"}
        return configure_optimizers(self, self.optimizer, [f"model.{n}." for n in sorted(learned)])

    def on_fit_start(self) -> None:
        """Forget the version of the file that the weights came from; Lightning keeps modes as they are."""
        self.info = None
        self.train()

    def create_trainer(self, **lightning_args: Any) -> lightning.Trainer:
        """Make a Lightning trainer, keep it as `trainer` and return it.

        Parameters
        ----------
        **lightning_args
            Arguments of `lightning.Trainer`.
        """
        trainer = lightning.Trainer(**lightning_args)
        self.trainer = trainer
        return trainer


def confusion_metrics(confusion: NDArray[Any], labels: Sequence[str]) -> dict[str, float]:
    """Compute what a confusion matrix says.

    Parameters
    ----------
    confusion
        (classes, classes): true by predicted.
    labels
        Names of the classes.

    Returns
    -------
    dict
        ``accuracy`` (micro: share of crops that are right), ``macro_accuracy`` (mean over classes of
        the share of their crops that are right), ``macro_precision`` (mean over classes of the share
        of what was taken for them that is), and ``accuracy_LABEL`` for each class. Classes without
        crops are left out; one that was never predicted has precision 0.
    """
    right = np.diagonal(confusion).astype(float)
    true, predicted = confusion.sum(1), confusion.sum(0)
    there = true > 0
    if not there.any():
        return {}
    recall = right[there] / true[there]
    precision = right[there] / np.maximum(predicted[there], 1)
    named = [name for name, kept in zip(labels, there, strict=True) if kept]
    return {
        "accuracy": float(right.sum() / true.sum()),
        "macro_accuracy": float(recall.mean()),
        "macro_precision": float(precision.mean()),
        **{f"accuracy_{name}": float(value) for name, value in zip(named, recall, strict=True)},
    }
