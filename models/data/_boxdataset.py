"""What datasets of training windows have in common: pixels and boxes of a place, and randomness."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ...catalog.errors import TrainingError
from ._grouping import boxed_images, sorted_labels
from ._reader import RasterReader
from ._windows import cut_boxes
from .augment import Sample, Target, mosaic
from .config import Rectangle, WindowConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from ._grouping import BoxedImage

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
                low = np.ceil(np.maximum(corners[0], 0))
                high = np.floor(np.minimum(corners[1], size))
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
