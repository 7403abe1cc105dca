"""Batches of training windows for Lightning."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch.utils.data import DataLoader, Sampler

from ...catalog.errors import AnnotationError, TrainingError
from ._boxdataset import BoxDataset, Draw
from ._grouping import sorted_labels
from ._reader import RasterReader
from .augment import Augment
from .config import AugmentConfig, WindowConfig
from .dataset import WindowDataset
from .randomcrops import RandomCropDataset
from .splitting import Part, image_in_both, split_annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from torch import Tensor

    from .augment import Sample, Target
    from .config import DataConfig, Rectangle

    Annotations = pd.DataFrame | str | Path | Sequence[str | Path]

_log = logging.getLogger("geosweep")

Batch = tuple[list["Tensor"], list["Target"]]


class DetectionDataModule(lightning.LightningDataModule):
    """Training and validation windows with their boxes, in torchvision's detection convention.

    A batch is a list of images, float32 (3, H, W) in 0–1, and a list of targets with ``boxes``
    float32 (N, 4), ``labels`` int64 (N,), ``image_path`` and ``window`` (xoff, yoff, width, height).
    Batches follow from the seed and the epoch alone, whatever the number of workers.

    Parameters
    ----------
    train
        Annotations: a frame, a file or several, as `read_annotations` takes them.
    val
        Annotations to validate on, or the share of `train` to hold out for it; None for none.
    labels
        The classes in their order; those of `train`, sorted, if None.
    windows
        How windows are cut. Validation takes every window of the grid.
    augment
        Augmentation of the training windows: a configuration, None, or what is called with an image
        and its target and returns both (``torchvision.transforms.v2`` fits).
    split_by
        What is held out where `val` is a share: whole ``image``s, or a ``block`` of ground inside
        them. Images that overlap on the map are never divided.
    train_regions, val_regions
        For an `image_path`, the rectangles (x0, y0, x1, y1) in pixels to train or validate on; images
        that are not named are used whole. Not where `val` is a share.
    batch_size
        Windows in a batch.
    num_workers
        Processes that read ahead; 0 reads in this one.
    seed
        Of order, augmentation, negatives and held-out share.
    root_dir
        Folder of relative image paths; that of each annotation file, or the frame's own, if None.
    start_method
        How workers start: ``fork``, ``spawn`` or ``forkserver``; None for Python's default.

    Raises
    ------
    AnnotationError
        If annotations can't be read or don't fit. Here and in `labels` and `setup`.
    """

    def __init__(
        self,
        train: Annotations,
        val: Annotations | float | None = None,
        *,
        labels: Sequence[str] | None = None,
        windows: WindowConfig | None = None,
        augment: AugmentConfig | Callable[[Tensor, Target], Sample] | None = None,
        split_by: str = "image",
        train_regions: Mapping[str, Sequence[Rectangle]] | None = None,
        val_regions: Mapping[str, Sequence[Rectangle]] | None = None,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 0,
        root_dir: str | None = None,
        start_method: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(val, float | int) and not 0 < val < 1:
            raise TrainingError(f"val is {val}: give a share above 0 and below 1, or annotations.")
        if split_by not in ("image", "block"):
            raise TrainingError(f"split_by is {split_by!r}: say 'image' or 'block'.")
        if isinstance(val, float | int) and (train_regions or val_regions):
            raise TrainingError(
                f"val is {val}, a share, which settles the regions: leave train_regions and "
                "val_regions out, or give annotations to validate on."
            )
        self.windows, self.augment = windows or WindowConfig(), augment
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._start_method = start_method
        self._reader = RasterReader.of(self.windows)
        self._root_dir = root_dir
        whole = _frame(train, root_dir)
        self.labels = sorted_labels(whole) if labels is None else tuple(labels)
        """The classes; a label's place is its index."""
        twice = [label for i, label in enumerate(self.labels) if label in self.labels[:i]]
        if twice:
            raise TrainingError(f"labels has {twice[0]!r} twice; write each label once.")
        if not self.labels:
            raise AnnotationError(
                "The annotations to train on have no box, so there is no label to learn; give labels."
            )
        if isinstance(val, float | int):
            self._train, self._val = split_annotations(
                whole,
                float(val),
                by=split_by,  # type: ignore[arg-type]
                windows=self.windows,
                seed=seed,
                root_dir=root_dir,
                reader=self._reader,
            )
        else:
            self._train = Part(whole, train_regions)
            self._val = None if val is None else Part(_frame(val, root_dir), val_regions)
            shared = None if self._val is None else image_in_both(self._train, self._val)
            if shared is not None:
                _log.warning(
                    "%s is trained on and validated on: its figures say nothing about new images.",
                    shared,
                )
        self.train_dataset: BoxDataset | None = None
        """Made by `setup`."""
        self.val_dataset: WindowDataset | None = None
        """Made by `setup`; None without validation."""

    @classmethod
    def from_config(cls, config: DataConfig, **overrides: Any) -> DetectionDataModule:
        """Make it from the `data:` block of a training configuration.

        Parameters
        ----------
        config
            The block.
        **overrides
            Arguments of the class, over what the block says; `seed` is not in the block.
        """
        settings = {name: getattr(config, name) for name in type(config).model_fields}
        return cls(**{**settings, **overrides})

    @property
    def label_dict(self) -> dict[str, int]:
        """Index of each label."""
        return {label: i for i, label in enumerate(self.labels)}

    @property
    def train_frame(self) -> pd.DataFrame:
        """Annotations of the images that are trained on, at least in part."""
        return self._train.frame

    @property
    def val_frame(self) -> pd.DataFrame | None:
        """Annotations of the images that are validated on, at least in part."""
        return None if self._val is None else self._val.frame

    def setup(self, stage: str | None = None) -> None:
        """Plan the windows; reads headers only."""
        if self.train_dataset is None and stage in (None, "fit"):
            self.train_dataset = self._training()
            _log.info("training on %s", _described(self.train_dataset))
        if self.val_dataset is None and self._val is not None:
            # Every window, as prediction would meet them.
            windows = self.windows.model_copy(update={"sampling": "windows", "negatives": "all"})
            self.val_dataset = WindowDataset(self._val.frame, windows, **self._shared(self._val))
            _log.info("validating on %s", _described(self.val_dataset))

    def _shared(self, part: Part) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "regions": part.regions,
            "seed": self.seed,
            "root_dir": self._root_dir,
            "reader": self._reader,
        }

    def _training(self) -> BoxDataset:
        settings = self._shared(self._train)
        if isinstance(self.augment, AugmentConfig):
            # The datasets zoom as they read: zooming out shows more of the raster.
            settings |= {"zoom": self.augment.zoom, "mosaic": self.augment.mosaic}
            settings["transform"] = Augment(
                self.augment.model_copy(update={"zoom": (1.0, 1.0)}),
                min_visible=self.windows.min_visible,
                min_side=self.windows.min_side,
            )
        else:
            settings["transform"] = self.augment
        kind = RandomCropDataset if self.windows.sampling == "crops" else WindowDataset
        return kind(self._train.frame, self.windows, **settings)

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented batches of the training windows."""
        self.setup("fit")
        assert self.train_dataset is not None
        sampler = EpochSampler(self.train_dataset, self.seed)
        return self._loader(self.train_dataset, sampler=sampler)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Batches of the validation windows in order; an empty list without validation."""
        self.setup("validate")
        return [] if self.val_dataset is None else self._loader(self.val_dataset, shuffle=False)

    def _loader(self, dataset: BoxDataset, **settings: Any) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
            persistent_workers=self.num_workers > 0,
            multiprocessing_context=self._start_method if self.num_workers else None,
            **settings,
        )


class EpochSampler(Sampler[Draw]):
    """Every index once an epoch in a random order, together with the number of the epoch.

    Lightning sets the epoch, so that a resumed training goes on with what it would have seen; left
    alone, each iteration is a new epoch.

    Parameters
    ----------
    dataset
        What is drawn from.
    seed
        Of the order.
    """

    def __init__(self, dataset: BoxDataset, seed: int) -> None:
        self._length = len(dataset)
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        epoch, self._epoch = self._epoch, self._epoch + 1
        for index in torch.randperm(self._length, generator=generator).tolist():
            yield Draw(index, epoch)

    def __len__(self) -> int:
        return self._length


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples into a batch as torchvision's detectors take it; sizes may differ."""
    return [image for image, _ in samples], [target for _, target in samples]


def _frame(annotations: Annotations, root_dir: str | None) -> pd.DataFrame:
    import pandas as pd

    if isinstance(annotations, pd.DataFrame):
        return annotations
    from .annotations import read_annotations

    return read_annotations(annotations, root_dir=root_dir)


def _described(dataset: BoxDataset) -> str:
    counted = f"{len(dataset)} windows of {len(dataset.images)} image(s)"
    if isinstance(dataset, WindowDataset):
        counted += f", {int(dataset.positives.sum())} with a box"
    return counted
