"""Rectangles of pixels: what the window stream reads from, and images that are already in memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..catalog.errors import RasterError
from .bands import BandRequest

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, half-open."""


def overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two rectangles share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


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

    def is_damaged(self, part: Sequence[int]) -> bool:
        """Whether a rectangle x0, y0, x1, y1 touches a damaged one."""
        return any(overlap(part, bad) for bad in self.damaged)


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
    crop_channels: Mapping[str, tuple[int, ...]]
    """The channels of those crop models that want others than the first three."""
    pixel_bytes: float
    """Bytes that are decoded for a pixel of the level."""
    lanes: int
    """Most rectangles that `read_each` decodes at a time."""

    @property
    def decoded_bytes(self) -> int:
        """Bytes of pixels that were decoded so far."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes that these pixels' blocks have in the file; 0 where its format doesn't tell."""
        ...

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Decode a rectangle of the level."""
        ...

    def read_each(self, rectangles: Sequence[Rectangle], ahead: int) -> Generator[Strip]:
        """Decode rectangles in order, `ahead` of them at most before they are asked for."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class ArraySource:
    """An image that is already in memory, behind the same interface.

    Parameters
    ----------
    image
        (H, W, 3) uint8, or float in 0–1.
    crops
        What crop models want of it: some of its three bands, as they are.
    """

    def __init__(
        self, image: NDArray[Any], crops: Mapping[str, BandRequest] = MappingProxyType({})
    ) -> None:
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
        self.pixel_bytes: float = self.count
        self.lanes = 1
        self.decoded_bytes = self.stored_bytes = 0
        self.block: tuple[int, int] = (256, self.width)
        self.transform: Affine | None = None
        self.crs: str | None = None
        self.crop_channels: Mapping[str, tuple[int, ...]] = {
            name: _image_channels(name, want) for name, want in crops.items()
        }

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Give a view of a rectangle."""
        return Strip((x0, y0, x1, y1), self._array[:, y0:y1, x0:x1])

    def read_each(self, rectangles: Sequence[Rectangle], ahead: int) -> Generator[Strip]:
        """Give views of rectangles; there is nothing to do ahead."""
        for bounds in rectangles:
            yield self.read(*bounds)

    def close(self) -> None:
        """Nothing to release."""


def _image_channels(name: str, request: BandRequest) -> tuple[int, ...]:
    bands = request.bands or (1, 2, 3)
    if request.rescale is not None or not set(bands) <= {1, 2, 3}:
        raise RasterError(
            f"crop model {name} wants the bands {', '.join(map(str, bands))}, and the image has red, "
            "green and blue alone; give a raster file, or a crop model of bands 1 to 3."
        )
    return tuple(int(band) - 1 for band in bands)
