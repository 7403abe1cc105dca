"""Windows as a detector sees them, and its boxes on the raster level."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..models import Detector
    from .halving import Halving
    from .stream import WindowBatch
    from .windows import WindowGrid


@dataclass(slots=True)
class Found:
    """Detections of some windows.

    Parameters
    ----------
    boxes
        float32 (N, 4): xmin, ymin, xmax, ymax in pixels of the level that was read.
    labels
        int64 (N,), indices into the detector's labels.
    scores
        float32 (N,).
    window
        int64 (N,), number of the window each was found in.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    window: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> Found:
        return Found(*(getattr(self, part.name)[which] for part in fields(self)))

    @classmethod
    def empty(cls) -> Self:
        """No detections."""
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Found]) -> Self:
        """Join parts, in order."""
        if not parts:
            return cls.empty()
        return cls(
            *(np.concatenate([getattr(p, part.name) for p in parts]) for part in fields(cls))
        )


@dataclass(frozen=True, slots=True)
class Views:
    """Windows as models are to see them.

    Parameters
    ----------
    images
        (B, 3, h, w) uint8.
    index
        int64 (B,) window numbers.
    offsets
        int64 (B, 2), x and y of the windows' corners on the level.
    scale
        Level pixels for each pixel of a view, x and y.
    """

    images: NDArray[np.uint8]
    index: NDArray[np.int64]
    offsets: NDArray[np.int64]
    scale: tuple[float, float]

    def only(self, which: NDArray[np.bool_]) -> Views:
        """Some of them; all of them without a copy."""
        if which.all():
            return self
        return Views(self.images[which], self.index[which], self.offsets[which], self.scale)


def views_of(batch: WindowBatch, grid: WindowGrid, model_size: int | None = None) -> Views:
    """Make a batch's windows ready for models.

    Parameters
    ----------
    batch
        (B, C, size, size) uint8 windows, of which the first three channels are the detector's.
    grid
        The plan that the windows come from. Where the raster is smaller than a window, models get the
        raster's part only, as a detector that rescales its input must not see padding.
    model_size
        Side in pixels at which the detector wants a full window, when a GSD was asked for: windows are
        resampled to it (bilinear, antialiased) and boxes scaled back. None leaves pixels alone.
    """
    high, wide = grid.valid
    images = batch.pixels[:, :3, :high, :wide]
    scale_x = scale_y = 1.0
    if model_size is not None and model_size != grid.size:
        images, scale_x, scale_y = _resample(images, model_size / grid.size)
    images = np.ascontiguousarray(images)
    return Views(images, batch.index, grid.offsets(batch.index), (scale_x, scale_y))


def detect_in(detector: Detector, views: Views, halving: Halving) -> Found:
    """Detect in windows, so many at a time as fit into memory; gives boxes on the level's pixel grid."""
    if len(views.index) == 0:
        return Found.empty()
    stretch = np.array([*views.scale, *views.scale], np.float32)
    corners = views.offsets.astype(np.float32)
    parts: list[Found] = []
    results = chain.from_iterable(halving.run(detector.detect, views.images))
    for result, corner, index in zip(results, corners, views.index, strict=True):
        boxes = result.boxes * stretch + np.tile(corner, 2)
        parts.append(
            Found(
                boxes.astype(np.float32, copy=False),
                result.labels,
                result.scores,
                np.full(len(result), index, np.int64),
            )
        )
    return Found.concatenate(parts)


def _resample(images: NDArray[Any], factor: float) -> tuple[NDArray[Any], float, float]:
    import torch
    from torch.nn import functional

    high, wide = images.shape[2:]
    size = (max(1, round(high * factor)), max(1, round(wide * factor)))
    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(images)).float(),
        size=size,
        mode="bilinear",
        antialias=True,
    )
    pixels = resized.round_().clamp_(0, 255).to(torch.uint8).numpy()
    return pixels, wide / size[1], high / size[0]
