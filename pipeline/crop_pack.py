"""Crops on their way from one process to another: in one array, with what they take least room in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ..models import BareCropModel


@dataclass(frozen=True, slots=True)
class CropPack:
    """Crops for a crop model.

    As they were cut where that is less to carry, and the classifier resizes them on its device; else
    prepared. Many small arrays would each cost the object store as much as a large one.

    Parameters
    ----------
    pixels
        All values, crop after crop and band after band: uint8 or float32.
    shapes
        int64 (N, 3): bands, height and width of each.
    prepared
        Whether they are the network's input.
    """

    pixels: NDArray[Any]
    shapes: NDArray[np.int64]
    prepared: bool

    @classmethod
    def of(cls, crops: Sequence[NDArray[Any]], model: BareCropModel) -> CropPack:
        """Pack crops (h, w, bands) for a model."""
        if model.is_light(crops):
            planes = [crop.transpose(2, 0, 1) for crop in crops]
            flat = [plane.reshape(-1) for plane in planes]
            pixels = np.concatenate(flat) if flat else np.zeros(0, np.uint8)
            shapes = np.array([plane.shape for plane in planes], np.int64).reshape(-1, 3)
            return cls(pixels, shapes, prepared=False)
        inputs = model.prepare(crops)
        return cls(inputs.reshape(-1), np.tile(inputs.shape[1:], (len(inputs), 1)), prepared=True)

    @property
    def nbytes(self) -> int:
        """Size of the pixels."""
        return self.pixels.nbytes

    def crops(self) -> list[NDArray[Any]] | list[Tensor]:
        """What `CropModel.classify` takes: views (h, w, bands), or tensors."""
        ends = np.cumsum(self.shapes.prod(axis=1))[:-1]
        parts = [
            part.reshape(shape)
            for part, shape in zip(
                np.split(self.pixels, ends) if len(self.shapes) else [], self.shapes, strict=True
            )
        ]
        if not self.prepared:
            return [part.transpose(1, 2, 0) for part in parts]
        from torch import from_numpy

        return [from_numpy(part.copy()) for part in parts]  # the store's are read-only
