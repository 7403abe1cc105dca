"""The part of CropModel that knows its training data."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from ..catalog.errors import AnnotationError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ._croptransform import CropTransform
    from .data.cropframe import BoxSource
    from .data.cropsets import CropDataset, CropFolder

_log = logging.getLogger("geosweep")


class CropModelData(lightning.LightningModule):
    """Where a crop model's training data come from; see `CropModel`.

    Attributes
    ----------
    label_dict, num_classes
        Label names to indices, and their number; None while neither arguments nor data have told.
    batch_size, num_workers
        Of the loaders of `train_dataloader` and `val_dataloader`.
    balance
        What is done about rare classes: ``none``; ``sample``, drawing them as often as others; or
        ``weight``, weighing their loss.
    class_weights
        For the loss, float32 (classes,); None where all count the same.
    """

    num_classes: int | None
    label_dict: dict[str, int]
    model: nn.Module | None
    bands: tuple[int | str, ...] | None
    expand: int
    batch_size: int
    num_workers: int
    balance: str
    _named: bool

    def __init__(self) -> None:
        super().__init__()
        self.class_weights: Tensor | None = None
        self._train_data: CropDataset | CropFolder | None = None
        self._val_data: CropDataset | CropFolder | None = None

    if TYPE_CHECKING:  # CropModel has them

        def get_transform(self, augment: bool = False) -> CropTransform: ...
        def build(self) -> None: ...
        @property
        def labels(self) -> tuple[str, ...]: ...
        @property
        def crop_bands(self) -> int: ...

    def load_from_disk(
        self, train_dir: str | Path, val_dir: str | Path | float | None = None, *, seed: int = 0
    ) -> None:
        """Take crops from folders named by their label, as `write_crops` writes them.

        Parameters
        ----------
        train_dir
            Holds one folder of images (PNG, JPEG, GeoTIFF …) for each label, at any depth below it.
            Folders whose name begins with a dot are left out.
        val_dir
            The same for validation, where it may lack classes; or the share of each class's crops
            in `train_dir` to hold out.
        seed
            Of what is held out.

        Raises
        ------
        AnnotationError
            If a folder is missing or empty, or holds a class that the model does not have. A model
            without label names takes those of `train_dir`, sorted.
        """
        from .data.cropframe import split_by_class
        from .data.cropsets import CropFolder, class_folders

        self._settle(class_folders(train_dir), str(train_dir))

        def crops(folder: str | Path, augment: bool = False) -> CropFolder:
            transform = self.get_transform(augment=augment)
            return CropFolder(folder, self.label_dict, transform, num_bands=self.crop_bands)

        train, val = crops(train_dir, augment=True), None
        if isinstance(val_dir, (int, float)):
            rest, held = split_by_class(train.targets, val_dir, seed)
            val = crops(train_dir).take(held)
            train.take(rest)
        elif val_dir is not None:
            val = crops(val_dir)
        self._use(train, val)

    def load_from_annotations(
        self,
        train: BoxSource,
        val: BoxSource | float | None = None,
        *,
        label_column: str = "label",
        per_class: int | Literal["min"] | None = None,
        min_score: float | None = None,
        seed: int = 0,
        root_dir: str | Path | None = None,
        rescale: Sequence[Any] | None = None,
    ) -> None:
        """Take crops straight from the rasters that annotations name; nothing is written.

        Parameters
        ----------
        train
            What `write_crops_from` takes.
        val
            The same for validation, or the share of each class's boxes in `train` to hold out.
        label_column, per_class, min_score, seed, root_dir, rescale
            As there; `per_class` concerns `train` alone.

        Raises
        ------
        AnnotationError
            If the annotations can't be read, or hold a class that the model does not have.
        RasterError
            If a raster can't be read.
        """
        from .data.cropframe import labelled_boxes, sample_per_class, split_by_class
        from .data.cropsets import CropDataset

        def boxes(source: BoxSource) -> pd.DataFrame:
            return labelled_boxes(source, label_column, min_score=min_score, root_dir=root_dir)

        frames = [boxes(train)]
        if isinstance(val, (int, float)):
            frames = [
                frames[0].iloc[rows]
                for rows in split_by_class(frames[0]["label"].tolist(), val, seed)
            ]
        elif val is not None:
            frames.append(boxes(val))
        frames[0] = frames[0].iloc[sample_per_class(frames[0]["label"].tolist(), per_class, seed)]
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
        self.num_classes, self._named = len(found), True
        self.build()

    def _use(self, train: Any, val: Any = None) -> None:
        """Take datasets, say what they lack, and weigh the classes."""
        self._train_data, self._val_data = train, val
        counts = self._counts(train)
        absent = [name for name, count in zip(self.labels, counts, strict=True) if not count]
        if absent:
            _log.warning(
                "no crops to train on for %s: the model can't learn them", ", ".join(absent)
            )
        self.class_weights = None
        if self.balance == "weight":
            weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
            self.class_weights = torch.from_numpy(np.where(counts > 0, weights, 1.0)).float()

    def _counts(self, data: CropDataset | CropFolder) -> NDArray[np.int64]:
        return np.bincount(data.targets, minlength=len(self.labels))

    def class_counts(self) -> dict[str, int]:
        """Return the number of training crops of each label."""
        data = self._train_data
        counts = [0] * len(self.labels) if data is None else self._counts(data).tolist()
        return dict(zip(self.labels, counts, strict=True))

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
            counts = self._counts(data)
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
