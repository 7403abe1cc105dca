"""From the pixels of crops to a classifier's input, in a small part of the usual time.

The values are those of `standard_transform` up to rounding. Resizing is a weighted mean of a few rows,
then of a few columns, with weights that depend on two sizes alone. They add up to 1, so that it does not
matter whether one normalises before or after; before, there are fewer pixels. On a CPU the weighted means
of rows are what torch calls an embedding bag: one pass over memory, several times as fast as torch's own
resizing. On a GPU all crops of a batch are one product of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from ._croptransform import check_crop, standard_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ._croptransform import CropPixels

_QUICK = 2
"""A crop's side may be so many times the input's: tables of weights stay small, and a batch of crops that
is filled up to its largest is no more than so many times as wide and as high as the input."""


@dataclass(frozen=True, slots=True)
class CropInput:
    """A classifier's usual input: 0–1, normalised, resized with anti-aliasing.

    Parameters
    ----------
    mean, std
        Per band, of pixels in 0–1.
    normalize
        Does the same to a tensor.
    size
        Height and width of the input.
    interpolation
        ``bilinear`` or ``nearest``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalize: Callable[[Tensor], Tensor]
    size: tuple[int, int]
    interpolation: str

    def is_quick(self, crop: CropPixels) -> bool:
        """Whether a crop is small enough for the quick way; torch resizes others."""
        height, width = crop.shape[:2]
        return height <= _QUICK * self.size[0] and width <= _QUICK * self.size[1]

    def of_one(self, crop: CropPixels) -> Tensor:
        """Compute the input of one crop on the CPU.

        Parameters
        ----------
        crop
            (h, w, bands), uint8 or float32.

        Returns
        -------
        Tensor
            float32 (bands, H, W), the same to the bit whatever else is computed.
        """
        check_crop(crop)
        if not self.is_quick(crop):
            return standard_transform(self.normalize, self.size, self.interpolation)(crop)
        height, width, bands = crop.shape
        gain, bias = self._factors(crop.dtype)
        # Columns first: they are the rows of a table for the mean of columns.
        columns = crop.transpose(1, 2, 0).astype(np.float32, order="C")
        columns *= gain[:, None]
        columns += bias[:, None]
        wide = _bag(columns.reshape(width, -1), width, self.size[1], 1, self.interpolation)
        rows = wide.numpy().T.copy()  # (bands · h, W); numpy turns a matrix in half of torch's time
        return _bag(rows, height, self.size[0], bands, self.interpolation).view(bands, *self.size)

    def of_batch(
        self, crops: Sequence[CropPixels | Tensor], device: torch.device, *, together: bool
    ) -> Tensor:
        """Compute the inputs of crops on a device, (N, bands, H, W); tensors are inputs already.

        Those that are quick are computed `together` there, or else one by one on the CPU.
        """
        many = [
            i
            for i, crop in enumerate(crops)
            if together and not isinstance(crop, torch.Tensor) and self.is_quick(crop)
        ]
        ones = sorted(set(range(len(crops))) - set(many))
        parts: list[Tensor] = []
        if many:
            parts.append(self.of_many([np.asarray(crops[i]) for i in many], device))
        if ones:
            single = (crops[i] for i in ones)
            inputs = [x if isinstance(x, torch.Tensor) else self.of_one(x) for x in single]
            parts.append((torch.stack(inputs) if len(inputs) > 1 else inputs[0][None]).to(device))
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[torch.tensor(many + ones).argsort().to(device)]

    def of_many(self, crops: Sequence[CropPixels], device: torch.device) -> Tensor:
        """Compute the inputs of crops on a device.

        Parameters
        ----------
        crops
            (h, w, bands) each, quick ones.

        Returns
        -------
        Tensor
            float32 (N, bands, H, W) on the device; what `of_one` gives, up to the rounding of products
            of matrices there (`torch.set_float32_matmul_precision`).
        """
        for crop in crops:
            check_crop(crop)
        heights, widths = ([crop.shape[axis] for crop in crops] for axis in (0, 1))
        bands = crops[0].shape[2]
        kind = np.result_type(*{crop.dtype for crop in crops})
        filled = np.zeros((len(crops), max(heights), max(widths), bands), kind)
        for place, crop in zip(filled, crops, strict=True):
            place[: crop.shape[0], : crop.shape[1]] = crop
        factors = np.stack([np.stack(self._factors(crop.dtype)) for crop in crops])
        gain, bias = torch.from_numpy(factors).to(device)[..., None, None].unbind(1)
        pixels = torch.from_numpy(filled).to(device).float().permute(0, 3, 1, 2) * gain + bias
        rows, columns = (
            _weights(tuple(sizes), size, self.interpolation, device)
            for sizes, size in zip((heights, widths), self.size, strict=True)
        )
        return rows[:, None] @ pixels @ columns[:, None].mT

    def _factors(self, kind: np.dtype[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What to multiply pixels by, and what to add then, per band."""
        return _factors(self.mean, self.std, 255.0 if kind == np.uint8 else 1.0)


@lru_cache(maxsize=32)
def _factors(
    mean: tuple[float, ...], std: tuple[float, ...], white: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    gain = 1.0 / np.array(std)
    return (gain / white).astype(np.float32), (-np.array(mean) * gain).astype(np.float32)


@lru_cache(maxsize=2048)
def _taps(length: int, size: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """Which of `length` pixels each of `size` is the mean of, int64 (size, k), and their weights.

    They are what torch makes of the pixels of a unit matrix, so that its rules hold to the last one.
    """
    unit = torch.eye(length)[None, None]
    smooth = interpolation == "bilinear"
    with torch.no_grad():
        made = F.interpolate(unit, (length, size), mode=interpolation, antialias=smooth)[0, 0].T
        used = made != 0
        first = used.int().argmax(dim=1, keepdim=True)
        last = length - 1 - used.flip(1).int().argmax(dim=1, keepdim=True)
        index = first + torch.arange(int((last - first).max()) + 1)
        weights = made.gather(1, index.clamp(max=length - 1)) * (index < length)
        return index.clamp(max=length - 1), weights


@lru_cache(maxsize=2048)
def _bags(length: int, size: int, tables: int, interpolation: str) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments of an embedding bag, for so many tables of `length` rows, one below the other."""
    index, weights = _taps(length, size, interpolation)
    every = torch.cat([index + length * table for table in range(tables)])
    offsets = torch.arange(0, every.numel(), every.shape[1], dtype=torch.int32)
    return every.reshape(-1).int(), offsets, weights.repeat(tables, 1).reshape(-1)


def _bag(
    rows: NDArray[np.float32], length: int, size: int, tables: int, interpolation: str
) -> Tensor:
    """Weighted means of rows: (tables · length, D) to (tables · size, D)."""
    index, offsets, weights = _bags(length, size, tables, interpolation)
    # Positions: scale_grad_by_freq, mode (0 is the sum), sparse, per_sample_weights.
    return torch.embedding_bag(torch.from_numpy(rows), index, offsets, False, 0, False, weights)[0]


def _weights(
    lengths: tuple[int, ...], size: int, interpolation: str, device: torch.device
) -> Tensor:
    """Matrices (N, size, longest) that resize each of N lengths."""
    taps = [_taps(length, size, interpolation) for length in lengths]
    most = max(index.shape[1] for index, _ in taps)
    packed = torch.zeros(2, len(taps), size, most)
    for place, (index, weights) in enumerate(taps):
        packed[0, place, :, : index.shape[1]] = index  # float32 is exact for what is so small
        packed[1, place, :, : index.shape[1]] = weights
    packed = packed.to(device)
    matrices = torch.zeros(len(taps), size, max(lengths), device=device)
    return matrices.scatter_add_(2, packed[0].long(), packed[1])
