"""Training windows at random places and magnifications of labelled rasters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...catalog.errors import AnnotationError, TrainingError
from ._boxdataset import BoxDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .augment import Sample


class RandomCropDataset(BoxDataset):
    """Square windows anywhere in the labelled rasters, many of them around a box.

    An object is so seen at any place of a window, and at many sizes. What is drawn for an index
    follows from the seed, the index and the epoch alone.

    Parameters
    ----------
    frame, labels, regions, transform, mosaic, seed, root_dir
        As for `WindowDataset`.
    windows
        `size`, `near_box`, `per_epoch`, `weights` and how rasters are read.
    zoom
        Range of the magnification, drawn uniformly in its logarithm.

    Raises
    ------
    AnnotationError
        If annotations don't fit.
    TrainingError
        If `regions` or a weight names an image that has no annotations.
    RasterError
        If an image can't be opened.
    """

    def _plan(self) -> None:
        if self.windows.size is None:
            raise TrainingError("Random crops need a size; windows.size is null.")
        self._size = self.windows.size
        if len(self._regions) == 0:
            raise AnnotationError("The annotations leave no image to cut training windows from.")
        areas = self._areas()
        shares = self._shares(areas)
        self._cumulated = np.cumsum(shares / shares.sum())
        self._length = self.windows.per_epoch or max(1, math.ceil(areas.sum()))

    def _areas(self) -> NDArray[np.float64]:
        """How many windows' worth of ground each region has."""
        numbers, x0, y0, x1, y1 = self._regions.T
        side = np.array([info.scale for info in self._infos])[numbers] * self._size
        return (x1 - x0) * (y1 - y0) / side**2

    def _shares(self, areas: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = self.windows.weights
        if weights is None:
            return areas
        paths = [image.path for image in self.images]
        unknown = set(weights) - set(paths)
        if unknown:
            raise TrainingError(
                f"windows.weights names {sorted(unknown)[0]}, which has no annotations; the images "
                f"are {', '.join(paths[:5])}{' …' if len(paths) > 5 else ''}."
            )
        numbers = self._regions[:, 0]
        whole = np.bincount(numbers, areas, minlength=len(paths))
        chosen = np.array([weights.get(path, 0.0) for path in paths])
        shares = chosen[numbers] * areas / whole[numbers]
        if not shares.sum():
            raise TrainingError("windows.weights gives every image the weight 0.")
        return shares

    def __len__(self) -> int:
        return self._length

    def _sample(self, index: int) -> Sample:
        drawn = np.searchsorted(self._cumulated, torch.rand(()).item(), side="right")
        region = self._regions[min(int(drawn), len(self._regions) - 1)]
        i, x0, y0, x1, y1 = (int(v) for v in region)
        side = max(1, round(self._size * self._infos[i].scale / self._draw_zoom()))
        side = min(side, x1 - x0, y1 - y0)
        x, y = x0 + _up_to(x1 - x0 - side), y0 + _up_to(y1 - y0 - side)
        if torch.rand(()) < self.windows.near_box:
            centres = (self._boxes[i][:, :2] + self._boxes[i][:, 2:]) / 2
            inside = ((centres >= [x0, y0]) & (centres < [x1, y1])).all(axis=1)
            if inside.any():
                near = centres[inside][_up_to(int(inside.sum()) - 1)]
                start = near - side * torch.rand(2).numpy()
                x = int(np.clip(start[0], x0, x1 - side))
                y = int(np.clip(start[1], y0, y1 - side))
        return self._cut(i, (x, y, side, side), (self._size, self._size))


def _up_to(last: int) -> int:
    return int(torch.randint(last + 1, ()))
