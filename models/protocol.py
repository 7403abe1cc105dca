"""What a detector and a tile filter are to the rest of geosweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detections:
    """The boxes found in one image.

    Parameters
    ----------
    boxes
        float32 (N, 4): xmin, ymin, xmax, ymax in pixels of the image, origin top left.
    labels
        int64 (N,): indices into the detector's `labels`.
    scores
        float32 (N,): in [0, 1], descending.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        """No boxes, with the right dtypes and shapes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))


@runtime_checkable
class Detector(Protocol):
    """Anything that turns a batch of images into boxes.

    Attributes
    ----------
    name
        How the model was asked for, for example ``geosweep/tree``.
    version
        Changes whenever the predictions may change (a hash of weights and architecture).
    labels
        Label names by index.
    device
        ``cpu``, ``cuda:0`` …
    """

    name: str
    version: str
    labels: tuple[str, ...]
    device: str

    def detect(
        self, images: NDArray[np.uint8] | NDArray[np.float32] | torch.Tensor
    ) -> list[Detections]:
        """Detect objects in a batch.

        Parameters
        ----------
        images
            (B, 3, H, W), RGB; uint8 in 0–255 or float in 0–1. Any H and W.

        Returns
        -------
        list of Detections
            One for each image, boxes in pixels of that image. An image's result does not depend on
            the others in its batch.
        """
        ...


@runtime_checkable
class TileScorer(Protocol):
    """Anything that scores whole windows: what the pipeline needs of a tile filter.

    Attributes
    ----------
    name
        How the model was asked for.
    version
        Changes whenever the scores may change.
    labels
        Foreground labels, then ``"empty"``.
    empty_threshold
        Score of ``empty`` from which a window may be dropped.
    device
        ``cpu``, ``cuda:0`` …
    """

    name: str
    version: str
    labels: tuple[str, ...]
    empty_threshold: float
    device: str

    def scores(
        self, images: NDArray[np.uint8] | NDArray[np.float32] | torch.Tensor
    ) -> NDArray[np.float32]:
        """Score a batch.

        Parameters
        ----------
        images
            (B, 3, H, W), RGB; uint8 in 0–255 or float in 0–1. Any H and W.

        Returns
        -------
        NDArray
            float32 (B, labels) in 0–1: independent of each other, and of the rest of the batch.
        """
        ...
