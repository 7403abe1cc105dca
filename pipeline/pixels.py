"""Rectangles of pixels: what the window stream reads from, and images that are already in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..catalog.errors import RasterError

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, half-open."""


@dataclass(slots=True)
class Strip:
    """A decoded rectangle of a raster.

    Parameters
    ----------
    bounds
        Which pixels of the level these are.
    data
        (C, h, w), uint8 where the stream is for a detector.
    valid
        (h, w) mask of pixels that are data, or None where the raster has no nodata at all.
    damaged
        Rectangles whose blocks the decoder complained about: their pixels are not to be trusted.
    """

    bounds: Rectangle
    data: NDArray[Any]
    valid: NDArray[np.bool_] | None = None
    damaged: tuple[Rectangle, ...] = ()


class PixelSource(Protocol):
    """One level of a raster. Used by one thread at a time."""

    width: int
    height: int
    count: int
    dtype: np.dtype
    block: tuple[int, int]
    """(height, width) of the blocks that decode as one."""
    full_size: tuple[int, int]
    """(width, height) of the whole raster; more than the level's where an overview is read."""
    transform: Affine | None
    """Pixel to map coordinates of the whole raster, None without georeferencing."""
    crs: str | None

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Decode a rectangle of the level."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@dataclass(frozen=True, slots=True)
class BandSelection:
    """Which bands to take and how to bring them to 8 bit.

    Parameters
    ----------
    bands
        1-based numbers or band descriptions; None takes all the raster has.
    rescale
        (low, high) for each band, or one for all: mapped to 0–255 and clipped, by rio-tiler.
    for_detector
        Demand three bands of 8 bit after selection and rescaling, and drop an alpha band.
    """

    bands: tuple[int | str, ...] | None = None
    rescale: tuple[tuple[float, float], ...] | None = None
    for_detector: bool = True


class ArraySource:
    """An image that is already in memory, behind the same interface.

    Parameters
    ----------
    image
        (H, W, 3) uint8, or float in 0–1.
    """

    def __init__(self, image: NDArray[Any]) -> None:
        array = np.asarray(image)
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise RasterError(
                f"The image has shape {array.shape}; give an array of (height, width, 3), RGB."
            )
        if array.dtype != np.uint8:
            low, high = float(array.min()), float(array.max())
            if not np.issubdtype(array.dtype, np.floating) or not 0.0 <= low <= high <= 1.0:
                raise RasterError(
                    f"The image is {array.dtype} with values {low:g} to {high:g}; give uint8, or "
                    "float between 0 and 1."
                )
            array = np.rint(array * 255).astype(np.uint8)
        self._array = np.ascontiguousarray(array.transpose(2, 0, 1))
        self.count, self.height, self.width = self._array.shape
        self.full_size = (self.width, self.height)
        self.dtype = self._array.dtype
        self.block: tuple[int, int] = (256, self.width)
        self.transform: Affine | None = None
        self.crs: str | None = None

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Give a view of a rectangle."""
        return Strip((x0, y0, x1, y1), self._array[:, y0:y1, x0:x1])

    def close(self) -> None:
        """Nothing to release."""


def select_bands(bands: Sequence[int | str] | None, rescale: object) -> BandSelection:
    """Build a detector's selection from what a user passed (`rescale` as one pair or a list)."""
    pairs: tuple[tuple[float, float], ...] | None = None
    if rescale is not None:
        values = np.asarray(rescale, dtype=float).reshape(-1, 2)
        pairs = tuple((float(low), float(high)) for low, high in values)
    return BandSelection(tuple(bands) if bands is not None else None, pairs)
