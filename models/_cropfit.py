"""The half of CropModel that trains: data, losses, metrics, Lightning's hooks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, WeightedRandomSampler
from torchmetrics.classification import MulticlassConfusionMatrix

from ..catalog.errors import AnnotationError, ModelError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ._croptransform import CropTransform
    from .data.cropsets import CropDataset, CropFolder
    from .info import ModelInfo

_log = logging.getLogger("geosweep")

BALANCES = ("none", "sample", "weight")
"""What can be done about rare classes: nothing; draw them as often as others; weigh their loss."""


class TrainableCropModel(lightning.LightningModule):
    """Lightning's view of a crop model; see `CropModel`, which adds construction and prediction.

    Attributes
    ----------
    label_dict, num_classes
        Label names to indices, and their number; None while neither arguments nor data have told.
    batch_size, num_workers
        Of the loaders of `train_dataloader` and `val_dataloader`.
    balance
        ``none``, ``sample`` or ``weight``.
    confusion
        int64 (classes, classes), true by predicted: the last validation's. None before one.
    """

    num_classes: int | None
    label_dict: dict[str, int]
    model: nn.Module | None
    info: ModelInfo | None
    bands: tuple[int | str, ...] | None
    expand: int
    lr: float
    batch_size: int
    num_workers: int
    balance: str
    _named: bool

    def __init__(self) -> None:
        super().__init__()
        self.confusion: NDArray[np.int64] | None = None
        self._matrix: MulticlassConfusionMatrix | None = None
        self._class_weights: Tensor | None = None
        self._train_data: CropDataset | CropFolder | None = None
        self._val_data: CropDataset | CropFolder | None = None

    if TYPE_CHECKING:  # CropModel has them

        def get_transform(self, augment: bool = False) -> CropTransform: ...
        def build(self) -> None: ...
        @property
        def labels(self) -> tuple[str, ...]: ...

    @property
    def crop_bands(self) -> int:
        """Bands of a crop before the transform."""
        return 3 if self.bands is None else len(self.bands)

    # --- data -------------------------------------------------------------------------------------

    def load_from_disk(self, train_dir: str | Path, val_dir: str | Path | None = None) -> None:
        """Take crops from folders named by their label, as `write_crops` writes them.

        Parameters
        ----------
        train_dir
            Holds one folder of images (PNG, JPEG, GeoTIFF …) for each label, at any depth below it.
            Folders whose name begins with a dot are left out.
        val_dir
            The same for validation; it may lack classes.

        Raises
        ------
        AnnotationError
            If a folder is missing or empty, or holds a class that the model does not have. A model
            without label names takes those of `train_dir`, sorted.
        """
        from .data.cropsets import CropFolder, class_folders

        self._settle(class_folders(train_dir), str(train_dir))
        made = [
            CropFolder(
                folder,
                self.label_dict,
                self.get_transform(augment=number == 0),
                num_bands=self.crop_bands,
            )
            for number, folder in enumerate((train_dir, val_dir))
            if folder is not None
        ]
        self._use(*made)

    def load_from_annotations(
        self,
        train: pd.DataFrame | str | Path,
        val: pd.DataFrame | str | Path | None = None,
        *,
        rescale: Sequence[Any] | None = None,
        label_column: str = "label",
    ) -> None:
        """Take crops straight from the rasters that annotations name; nothing is written.

        Parameters
        ----------
        train, val
            What `write_crops_from` takes.
        rescale
            As in `write_crops`.
        label_column
            The column with the classes.

        Raises
        ------
        AnnotationError
            If the annotations can't be read, or hold a class that the model does not have.
        RasterError
            If a raster can't be read.
        """
        from .data.cropframe import labelled_boxes
        from .data.cropsets import CropDataset

        frames = [labelled_boxes(train, label_column)]
        if val is not None:
            frames.append(labelled_boxes(val, label_column))
        self._settle(sorted(frames[0]["label"].unique()), "the training annotations")
        made = [
            CropDataset(
                frame,
                self.label_dict,
                self.get_transform(augment=number == 0),
                expand=self.expand,
                bands=self.bands,
                rescale=rescale,
            )
            for number, frame in enumerate(frames)
        ]
        self._use(*made)

    def _settle(self, found: Sequence[str], where: str) -> None:
        """Bring the labels of the data and of the model together; build what waited for them."""
        if self._named or not found:
            return
        if self.num_classes is not None and self.num_classes != len(found):
            raise AnnotationError(
                f"{where} has {len(found)} classes ({', '.join(found[:5])}), but the model was made "
                f"for {self.num_classes}; make them fit, or name all classes with label_dict."
            )
        self.label_dict = {name: i for i, name in enumerate(found)}
        self.num_classes, self._named, self._matrix = len(found), True, None
        self.build()

    def _use(self, train: Any, val: Any = None) -> None:
        """Take datasets, say what they lack, and weigh the classes."""
        self._train_data, self._val_data = train, val
        counts = np.bincount(train.targets, minlength=len(self.labels))
        absent = [name for name, count in zip(self.labels, counts, strict=True) if not count]
        if absent:
            _log.warning(
                "no crops to train on for %s: the model can't learn them", ", ".join(absent)
            )
        self._class_weights = None
        if self.balance == "weight":
            weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
            self._class_weights = torch.from_numpy(np.where(counts > 0, weights, 1.0)).float()

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of crops; each class equally often with ``balance="sample"``."""
        data = self._train_data
        if data is None:
            raise TrainingError(
                "CropModel has no crops to train on yet: call load_from_disk or "
                "load_from_annotations first, or give the trainer a loader."
            )
        sampler = None
        if self.balance == "sample":
            counts = np.bincount(data.targets, minlength=len(self.labels))
            weights = (1.0 / counts[data.targets]).tolist()
            sampler = WeightedRandomSampler(weights, len(weights))
        return self._loader(data, sampler=sampler, shuffle=sampler is None)

    def val_dataloader(self) -> DataLoader | list[Any]:
        """Return the batches to validate on; none without validation data."""
        return [] if self._val_data is None else self._loader(self._val_data)

    def _loader(self, data: Any, **options: Any) -> DataLoader:
        return DataLoader(
            data,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **options,
        )

    # --- steps ------------------------------------------------------------------------------------

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
        if self._matrix is None:
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
            self.log(f"val_{name}", value, prog_bar=name == "accuracy", rank_zero_only=True)

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
        weights = None if self._class_weights is None else self._class_weights.to(logits)
        return F.cross_entropy(logits, classes, weight=weights)

    def configure_optimizers(self) -> Any:
        """Return Adam at `lr`."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def on_fit_start(self) -> None:
        """Forget the version of the file that the weights came from."""
        self.info = None

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
