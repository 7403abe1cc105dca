"""Datasets of crops to train on: from folders, or straight from the rasters of annotations."""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch.utils.data import Dataset
from torchvision.datasets import DatasetFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from ...catalog.errors import AnnotationError
from ..crops import detection_bounds
from .cropfiles import folder_label, read_crop
from .cropframe import image_files
from .cutting import CropRaster
from .frame import boxes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

MAX_OPEN = 8
"""Rasters that a dataset keeps open in a process."""
_left_behind: list[Any] = []


def is_crop_folder(path: str | Path) -> bool:
    """Whether a path is a folder of crops: one that holds folders, and is no geosweep output."""
    path = Path(path)
    if not path.is_dir() or (path / "items").is_dir():
        return False
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir())


def class_folders(folder: str | Path) -> list[str]:
    """Return the labels of a folder of crops, sorted: its subfolders but for hidden ones.

    Raises
    ------
    AnnotationError
        If it can't be listed, or has none.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError as error:
        raise AnnotationError(f"{folder}: can't be listed ({error.strerror}).") from error
    labels = sorted(folder_label(name) for name in names if not name.startswith("."))
    if not labels:
        raise AnnotationError(
            f"{folder}: holds no folders; crops lie in one folder for each label, as write_crops "
            "writes them."
        )
    return labels


class CropFolder(DatasetFolder):
    """Crops in folders named by their label; items are (network input, class index).

    Parameters
    ----------
    root
        The folder.
    label_dict
        The classes; the folder may lack some, and none of them needs crops.
    transform
        From a crop's pixels (h, w, bands) to the network's input.
    num_bands
        Bands that each crop must have.

    Attributes
    ----------
    samples, targets
        Files with their class index; class indices alone.

    Raises
    ------
    AnnotationError
        If it holds no crops, or a class that is not in `label_dict`.
    """

    def __init__(
        self,
        root: str | Path,
        label_dict: Mapping[str, int],
        transform: Callable[[Any], Any] | None = None,
        *,
        num_bands: int = 3,
    ) -> None:
        self._label_dict = dict(label_dict)
        super().__init__(
            str(root),
            loader=partial(read_crop, num_bands=num_bands),
            extensions=IMG_EXTENSIONS,
            transform=transform,
            allow_empty=True,
        )
        if not self.samples:
            raise AnnotationError(f"{root}: holds no crops ({', '.join(IMG_EXTENSIONS)}).")

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """Keep these samples alone, and return the dataset."""
        self.samples = [self.samples[row] for row in rows]
        self.targets = [target for _, target in self.samples]
        return self

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the folders, and which class each is; torchvision asks for this."""
        class_folders(directory)  # for its errors
        names = sorted(
            entry.name
            for entry in os.scandir(directory)
            if entry.is_dir() and not entry.name.startswith(".")
        )
        known = {name: _class_of(folder_label(name), self._label_dict, directory) for name in names}
        return names, known


class CropDataset(Dataset):
    """Crops cut on demand from the rasters of a frame; items are (network input, class index).

    Rasters are opened in the process that reads, few at a time, and never used across a fork.

    Parameters
    ----------
    frame
        From `labelled_boxes`.
    label_dict
        The classes.
    transform
        From a crop's pixels (h, w, bands) to the network's input; None for the pixels themselves.
    expand, bands, rescale
        As in `write_crops`.

    Attributes
    ----------
    targets
        The N class indices.

    Raises
    ------
    AnnotationError
        If the frame is empty or has a label that is not in `label_dict`.
    RasterError
        If a raster can't be opened.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        label_dict: Mapping[str, int],
        transform: Callable[[Any], Any] | None = None,
        *,
        expand: float = 0,
        bands: Sequence[int | str] | None = None,
        rescale: Sequence[Any] | None = None,
    ) -> None:
        if len(frame) == 0:
            raise AnnotationError("There are no boxes with a label, so there is nothing to learn.")
        self.transform = transform
        self._files = image_files(frame)
        self.targets = [
            _class_of(label, label_dict, "the annotations") for label in frame["label"].tolist()
        ]
        self._open = partial(CropRaster, bands=bands, rescale=rescale)
        self._bounds = np.zeros((len(frame), 4), np.int64)
        boxes = boxes_of(frame)
        for file in dict.fromkeys(self._files):
            rows = [i for i, name in enumerate(self._files) if name == file]
            with self._open(file) as raster:
                self._bounds[rows] = detection_bounds(
                    boxes[rows], expand, raster.width, raster.height
                )
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._rasters: OrderedDict[str, CropRaster] = OrderedDict()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels = self._raster(self._files[index]).read(*self._bounds[index].tolist())
        crop = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        return (crop if self.transform is None else self.transform(crop)), self.targets[index]

    def _raster(self, file: str) -> CropRaster:
        if self._process != os.getpid():
            # A parent's handles: even to close them here would move its file offsets.
            _left_behind.append(self._rasters)
            self._forget()
        if file not in self._rasters:
            self._rasters[file] = self._open(file)
            if len(self._rasters) > MAX_OPEN:
                self._rasters.popitem(last=False)[1].close()
        self._rasters.move_to_end(file)
        return self._rasters[file]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_rasters", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _class_of(label: str, label_dict: Mapping[str, int], where: str | Path) -> int:
    if label not in label_dict:
        names = ", ".join(list(label_dict)[:5]) + (" …" if len(label_dict) > 5 else "")
        raise AnnotationError(
            f"{where} has the class {label!r}, which the model does not have (it has {names}); "
            "rename or remove it, or train with a label_dict that names it."
        )
    return label_dict[label]
