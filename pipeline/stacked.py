"""Several rasters of one band each, read as one: Sentinel-2's and Landsat's assets.

The finest raster's grid rules. Coarser ones are brought to it by the nearest pixel, worked out from the
two grids alone: a pixel is then what the provider measured, nodata stays nodata, and it is the same
however a scene is cut into strips. Interpolation would be none of these, and invents no detail either.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from rasterio.enums import ColorInterp

from ..catalog.errors import RasterError
from ._ahead import read_ahead
from ._aligned import Aligned, level_gsd, onto, pixel_size
from .bands import BandSelection, lay_out_bands
from .pixels import Rectangle, Strip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._blockrows import ReadEach
    from .raster import RasterSource

OpenPart = Callable[[str, BandSelection, float | None], "RasterSource"]
"""Opens the raster of a band by the band's name, at a resolution."""


class StackedSource:
    """Rasters of one band each, on the grid of the finest.

    Parameters
    ----------
    names
        Of the bands; numbers in a selection count them, from 1.
    open_part
        Opens one of them.
    selection
        Bands and rescaling; bands by name.
    resolution
        Wanted GSD in metres: of each raster the coarsest overview that is at least as fine is read.

    Raises
    ------
    RasterError
        If one can't be opened, or they are not of the same CRS and extent.
    """

    def __init__(
        self,
        names: Sequence[str],
        open_part: OpenPart,
        selection: BandSelection,
        *,
        resolution: float | None = None,
    ) -> None:
        self._parts: dict[str, RasterSource] = {}
        try:
            for name in names:
                self._parts[name] = _opened(open_part, name, resolution)
            finest = min(self._parts, key=lambda name: pixel_size(self._parts[name]))
            if resolution is not None:
                self._refine(finest, open_part)
            self._describe(finest, selection)
        except BaseException:
            self.close()
            raise

    def _refine(self, finest: str, open_part: OpenPart) -> None:
        """Read the finest raster no coarser than any other, so that none loses pixels on the way."""
        main = self._parts[finest]
        levels = {name: level_gsd(part) for name, part in self._parts.items()}
        wanted = min(levels.values())
        if levels[finest] > wanted * 1.001:
            main.close()
            self._parts[finest] = _opened(open_part, finest, wanted)

    def _describe(self, finest: str, selection: BandSelection) -> None:
        main = self._parts[finest]
        self.full_size, self.transform, self.crs = main.full_size, main.transform, main.crs
        self.width, self.height, self.block = main.width, main.height, main.block
        table = _Bands(tuple(self._parts), tuple(str(part.dtype) for part in self._parts.values()))
        self._layout = layout = lay_out_bands(table, table.name, selection)
        self.crop_channels: Mapping[str, tuple[int, ...]] = layout.crops
        self.count = len(layout.indexes)
        kinds = [table.dtypes[index - 1] for index in layout.indexes]
        rescaled = layout.ranges[0] is not None
        self.dtype = np.dtype(np.uint8) if rescaled else np.result_type(*kinds)
        names = list(dict.fromkeys(table.descriptions[index - 1] for index in layout.indexes))
        self._aligned = {
            name: Aligned(
                name, self._parts[name], onto(name, self._parts[name], finest, main), main
            )
            for name in names
        }
        self._channels = [names.index(table.descriptions[index - 1]) for index in layout.indexes]
        self._own = set(self._channels[: layout.own])
        self.pixel_bytes = sum(part.pixel_bytes for part in self._aligned.values())
        for part in self._parts.values():
            # All are read at the same time, so that one or two handles are enough for each.
            part.lanes = max(1, part.lanes // len(names))
        self.lanes = max(part.lanes for part in self._parts.values())

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Decode a rectangle of the finest raster's level.

        A pixel is data where any of the detector's bands has data, as in one raster of several bands.

        Raises
        ------
        RasterError
            If one of the rasters can't be read; it names the band.
        """
        return next(self._join([(x0, y0, x1, y1)], _one_by_one))

    def read_each(self, rectangles: Sequence[Rectangle], ahead: int) -> Generator[Strip]:
        """Decode rectangles in order, with all rasters read ahead at the same time.

        Raises
        ------
        RasterError
            As `read`, after the rectangles before it.
        """
        joined = self._join(rectangles, lambda source: partial(source.read_each, ahead=ahead))
        try:
            # To put the parts together, and to rescale them, is work for a thread, too.
            yield from read_ahead([lambda _: next(joined)], rectangles, 1)
        finally:
            joined.close()

    def _join(
        self, rectangles: Sequence[Rectangle], reading: Callable[[RasterSource], ReadEach]
    ) -> Generator[Strip]:
        parts = [part.read_each(rectangles, reading) for part in self._aligned.values()]
        try:
            for bounds in rectangles:
                yield self._stack(bounds, [next(part) for part in parts])
        finally:
            for part in parts:
                part.close()

    def _stack(self, bounds: Rectangle, strips: Sequence[Strip]) -> Strip:
        data = np.stack([strips[number].data for number in self._channels])
        masks = [strips[number].valid for number in sorted(self._own)]
        valid: NDArray[np.bool_] | None = None
        if all(mask is not None for mask in masks):
            valid = np.any([mask for mask in masks if mask is not None], axis=0)
        damaged = tuple(dict.fromkeys(bad for strip in strips for bad in strip.damaged))
        return Strip(bounds, self._layout.to_bytes(data, valid), valid, damaged)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of pixels that were decoded so far."""
        return sum(part.decoded_bytes for part in self._parts.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes that these pixels' blocks have in the files."""
        return sum(part.stored_bytes for part in self._parts.values())

    def close(self) -> None:
        """Release all files."""
        for part in self._parts.values():
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Bands:
    """The bands of a stack, as a raster's header would tell of them."""

    descriptions: tuple[str, ...]
    dtypes: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"the scene of the assets {', '.join(self.descriptions)}"

    @property
    def count(self) -> int:
        return len(self.descriptions)

    @property
    def indexes(self) -> range:
        return range(1, self.count + 1)

    @property
    def colorinterp(self) -> tuple[ColorInterp, ...]:
        return (ColorInterp.gray,) * self.count


def _one_by_one(source: RasterSource) -> ReadEach:
    return lambda rectangles: (source.read(*bounds) for bounds in rectangles)


def _opened(open_part: OpenPart, name: str, resolution: float | None) -> RasterSource:
    try:
        return open_part(name, BandSelection((name,), use="stack"), resolution)
    except RasterError as error:
        raise RasterError(f"band '{name}': {error}") from error
