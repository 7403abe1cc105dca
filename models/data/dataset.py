"""Training windows cut straight from labelled rasters: nothing is written, nothing is read whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
import torch

from ...catalog.errors import AnnotationError
from ._boxdataset import BoxDataset
from ._windows import cut_boxes, window_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .augment import Sample


class WindowDataset(BoxDataset):
    """Every window of a grid over the labelled rasters.

    Each window is read alone, from the fitting overview if a resolution is given. Images are taken
    to be labelled completely: what has no box is background.

    Parameters
    ----------
    frame
        Annotations, from `read_annotations`.
    windows
        Size, overlap, bands … of the windows.
    labels
        The classes in their order; those of the frame, sorted, if None.
    regions
        For an `image_path`, the rectangles (x0, y0, x1, y1) in pixels to which windows are kept;
        images that are not named are used whole.
    transform
        Called with an image and its target, returns both; ``torchvision.transforms.v2`` and `Augment`
        fit. Images come as ``tv_tensors.Image``, boxes as ``tv_tensors.BoundingBoxes``.
    zoom
        Range of a random magnification; for less than 1 the window grows, as far as the raster goes.
    mosaic
        Probability that a picture is made of four windows.
    seed
        Of the random changes and of the choice of negatives.
    root_dir
        Folder of relative image paths; the frame's own if None.
    reader
        To share open files and what is known of headers with another dataset.

    Raises
    ------
    AnnotationError
        If annotations don't fit, or leave no window.
    TrainingError
        If `regions` names an image that has no annotations.
    RasterError
        If an image can't be opened.
    """

    def _plan(self) -> None:
        places = [self._grid(number) for number in range(len(self._regions))]
        # Of each window the number of its region, xoff, yoff, width, height.
        self._places = np.concatenate([np.zeros((0, 5), np.int64), *places])
        if self.windows.negatives != "all":
            self._places = self._places[self._choose_negatives(float(self.windows.negatives))]
        if len(self._places) == 0:
            raise AnnotationError(
                "The annotations leave no training window: all boxes are too small or outside their "
                "images, and negatives is too low to keep windows without boxes."
            )

    def _grid(self, region: int) -> NDArray[np.int64]:
        i, x0, y0, x1, y1 = (int(v) for v in self._regions[region])
        size = self.windows.size
        side = max(x1 - x0, y1 - y0) if size is None else round(size * self._infos[i].scale)
        width, height = min(side, x1 - x0), min(side, y1 - y0)
        xs = x0 + window_offsets(x1 - x0, width, self.windows.overlap)
        ys = y0 + window_offsets(y1 - y0, height, self.windows.overlap)
        y, x = np.meshgrid(ys, xs, indexing="ij")
        rows = np.empty((y.size, 5), np.int64)
        rows[:] = (region, 0, 0, width, height)
        rows[:, 1], rows[:, 2] = x.ravel(), y.ravel()
        return rows

    @property
    def positives(self) -> NDArray[np.bool_]:
        """Which windows have a box."""
        found = np.zeros(len(self._places), bool)
        numbers = self._regions[self._places[:, 0], 0]
        for i, boxes in enumerate(self._boxes):
            mine = np.flatnonzero(numbers == i)
            windows = self._places[mine, 1:]
            x, y, width, height = windows.T
            tree = shapely.STRtree(shapely.box(*boxes.T))
            window, box = tree.query(shapely.box(x, y, x + width, y + height))
            _, kept = cut_boxes(
                boxes[box],
                windows[window],
                min_visible=self.windows.min_visible,
                min_side=self.windows.min_side * self._infos[i].scale,
            )
            found[mine[window[kept]]] = True
        return found

    def _choose_negatives(self, share: float) -> NDArray[np.bool_]:
        chosen = self.positives
        empty = np.flatnonzero(~chosen)
        if share < 1:
            wanted = round(share / (1 - share) * int(chosen.sum()))
            empty = np.random.default_rng(self.seed).permutation(empty)[:wanted]
        chosen[empty] = True
        return chosen

    def __len__(self) -> int:
        return len(self._places)

    def _sample(self, index: int) -> Sample:
        region, *window = (int(v) for v in self._places[index])
        i, *bounds = (int(v) for v in self._regions[region])
        x, y, width, height = window
        scale = self._infos[i].scale
        shape = (max(1, round(height / scale)), max(1, round(width / scale)))
        if self._zoom.any():
            # The same proportions, inside the window or around it, but in its region.
            x0, y0, x1, y1 = bounds
            factor = min(1 / self._draw_zoom(), (x1 - x0) / width, (y1 - y0) / height)
            wide, high = max(1, round(width * factor)), max(1, round(height * factor))
            x, y = _anywhere(x, width, wide, x0, x1), _anywhere(y, height, high, y0, y1)
            width, height = wide, high
        return self._cut(i, (x, y, width, height), shape)


def _anywhere(start: int, length: int, new: int, low: int, high: int) -> int:
    """Draw where `new` pixels start that lie inside `length` pixels from `start`, or around them."""
    first, last = sorted((start, start + length - new))
    first, last = max(first, low), min(last, high - new)
    return first + int(torch.randint(max(last - first, 0) + 1, ()))
