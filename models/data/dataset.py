"""Training windows cut straight from labelled rasters: nothing is written, nothing is read whole."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ...catalog.errors import AnnotationError, TrainingError
from ._grouping import boxed_images, sorted_labels
from ._reader import RasterReader
from ._windows import cut_boxes, window_offsets
from .augment import mosaic
from .config import Rectangle, WindowConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from ._grouping import BoxedImage

Target = dict[str, Any]
"""boxes float32 (N, 4), labels int64 (N,), image_path, window (xoff, yoff, width, height)."""
Sample = tuple["Tensor", Target]
"""float32 (3, H, W) in 0–1, and its target."""
Window = tuple[int, int, int, int]
"""xoff, yoff, width, height in pixels."""


class Draw(NamedTuple):
    """An index with its epoch, so that random changes differ from one epoch to the next."""

    item: int
    epoch: int


class BoxDataset(Dataset[Sample]):
    """What the datasets of windows have in common: images, boxes, randomness.

    An item is a function of the dataset, its `seed`, the index and the epoch, whichever process makes
    it: torch's generator is seeded from these for each item, and put back afterwards.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        windows: WindowConfig | None = None,
        *,
        labels: Sequence[str] | None = None,
        regions: Mapping[str, Sequence[Rectangle]] | None = None,
        transform: Callable[[Tensor, Target], Sample] | None = None,
        zoom: tuple[float, float] = (1.0, 1.0),
        mosaic: float = 0.0,
        seed: int = 0,
        root_dir: str | None = None,
        reader: RasterReader | None = None,
    ) -> None:
        self.windows = windows or WindowConfig()
        self.labels = sorted_labels(frame) if labels is None else tuple(labels)
        self.transform, self.mosaic, self.seed = transform, mosaic, seed
        self._zoom = np.log(zoom)
        self._reader = reader or RasterReader.of(self.windows)
        self.images: list[BoxedImage] = boxed_images(frame, self.labels, root_dir)
        self._infos = [self._reader.describe(image.file) for image in self.images]
        # From here on, boxes are in pixels of the level that is read.
        self._boxes = [
            image.boxes / info.factors for image, info in zip(self.images, self._infos, strict=True)
        ]
        self._regions = self._level_regions(regions)
        self._plan()

    def _level_regions(self, regions: Mapping[str, Sequence[Rectangle]] | None) -> NDArray:
        """The parts of the images to use: int64 (R, 5) of image number, x0, y0, x1, y1."""
        regions = regions or {}
        unknown = set(regions) - {image.path for image in self.images}
        if unknown:
            raise TrainingError(
                f"The regions name {sorted(unknown)[0]}, which has no annotations; write its "
                "image_path as the annotations have it."
            )
        rows = []
        for i, (image, info) in enumerate(zip(self.images, self._infos, strict=True)):
            size = np.array([info.width, info.height])
            whole = (0, 0, info.full_width, info.full_height)
            for rectangle in regions.get(image.path, (whole,)):
                corners = np.asarray(rectangle, np.float64).reshape(2, 2) / info.factors[:2]
                # Inwards: regions that meet must not share a pixel of the level.
                low, high = (
                    np.ceil(np.maximum(corners[0], 0)),
                    np.floor(np.minimum(corners[1], size)),
                )
                if (high > low).all():
                    rows.append((i, *low, *high))
        return np.array(rows, np.int64).reshape(-1, 5)

    def __getitem__(self, key: int | Draw) -> Sample:
        index, epoch = key if isinstance(key, Draw) else (key, 0)
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} of {len(self)} windows")
        with _seeded(self.seed, epoch, index % len(self)):
            image, target = self._sample(index % len(self))
            if self.mosaic and torch.rand(()) < self.mosaic:
                others = torch.randint(len(self), (3,)).tolist()
                w = self.windows
                image, target = mosaic(
                    [(image, target), *map(self._sample, others)],
                    min_visible=w.min_visible,
                    min_side=w.min_side,
                )
            if self.transform is not None:
                image, target = _transformed(self.transform, image, target)
        return image, target

    def _plan(self) -> None:
        """Settle which windows there are."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def _sample(self, index: int) -> Sample:
        """The sample as it is read, with torch's generator seeded for it."""
        raise NotImplementedError

    def _cut(self, i: int, window: Window, shape: tuple[int, int]) -> Sample:
        """Read a window of the image with number `i`, resampled to (height, width), with its boxes."""
        x, y, width, height = window
        image, info = self.images[i], self._infos[i]
        pixels = torch.from_numpy(self._reader.read(info, (x, y, width, height)))
        if shape != (height, width):
            pixels = F.interpolate(
                pixels[None], shape, mode="bilinear", antialias=True, align_corners=False
            )[0]
        ratio = np.array([shape[1] / width, shape[0] / height] * 2)
        boxes, kept = cut_boxes(
            self._boxes[i] * ratio,
            (x * ratio[0], y * ratio[1], shape[1], shape[0]),
            min_visible=self.windows.min_visible,
            min_side=self.windows.min_side,
        )
        full = np.rint(np.array([x, y, width, height]) * info.factors).astype(int)
        return pixels, {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.from_numpy(image.classes[kept]),
            "image_path": image.path,
            "window": tuple(full.tolist()),
        }

    def _draw_zoom(self) -> float:
        low, high = self._zoom
        return float(np.exp(low + (high - low) * torch.rand(()).item()))


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


@contextmanager
def _seeded(*parts: int) -> Iterator[None]:
    """Torch's CPU generator from these numbers, and as it was afterwards."""
    state = torch.get_rng_state()
    seed = np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]
    torch.default_generator.manual_seed(int(seed >> np.uint64(1)))
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _transformed(
    transform: Callable[[Tensor, Target], Sample], image: Tensor, target: Target
) -> Sample:
    """Apply a transform to tv_tensors; back to plain tensors, less boxes that have no area left."""
    height, width = image.shape[-2:]
    boxes = tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue]
        target["boxes"].reshape(-1, 4),
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(height, width),
    )
    image, target = transform(tv_tensors.Image(image), {**target, "boxes": boxes})
    boxes = torch.as_tensor(target["boxes"]).as_subclass(torch.Tensor)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return image.as_subclass(torch.Tensor), {
        **target,
        "boxes": boxes[kept],
        "labels": target["labels"][kept],
    }
