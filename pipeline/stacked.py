"""Several rasters of one band each, read as one: Sentinel-2's and Landsat's assets.

The finest raster's grid rules. Coarser ones are brought to it by the nearest pixel, worked out from the
two grids alone: a pixel is then what the provider measured, nodata stays nodata, and it is the same
however a scene is cut into strips. Interpolation would be none of these, and invents no detail either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from affine import Affine
from pyproj import CRS
from rasterio.enums import ColorInterp

from ..catalog.errors import RasterError
from ._blockrows import BlockRows
from ._geo import ground_sample_distance
from .bands import BandSelection, lay_out_bands
from .pixels import Rectangle, Strip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .raster import RasterSource

ALIGNED = 0.01
"""Pixels by which two grids may differ to count as one."""

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
            finest = min(self._parts, key=lambda name: _pixel_size(self._parts[name]))
            if resolution is not None:
                self._refine(finest, open_part)
            self._describe(finest, selection)
        except BaseException:
            self.close()
            raise

    def _refine(self, finest: str, open_part: OpenPart) -> None:
        """Read the finest raster no coarser than any other, so that none loses pixels on the way."""
        main = self._parts[finest]
        levels = {name: _level_gsd(part) for name, part in self._parts.items()}
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
            name: _Aligned(
                name, self._parts[name], _onto(name, self._parts[name], finest, main), main
            )
            for name in names
        }
        self._channels = [names.index(table.descriptions[index - 1]) for index in layout.indexes]
        self._own = set(self._channels[: layout.own])
        self.pixel_bytes = sum(part.pixel_bytes for part in self._aligned.values())

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Decode a rectangle of the finest raster's level.

        A pixel is data where any of the detector's bands has data, as in one raster of several bands.

        Raises
        ------
        RasterError
            If one of the rasters can't be read; it names the band.
        """
        bounds = (x0, y0, x1, y1)
        strips = [part.read(bounds) for part in self._aligned.values()]
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


class _Aligned:
    """One raster, read by rectangles of the grid that rules.

    Parameters
    ----------
    name
        Of the band.
    source
        The raster.
    onto
        From pixels of the ruling level to pixels of this raster's level.
    main
        The raster whose grid rules.
    """

    def __init__(self, name: str, source: RasterSource, onto: Affine, main: RasterSource) -> None:
        self._name = name
        self._source = source
        self._onto = onto
        size = np.array([main.width, main.height])
        shift = np.abs([onto.c, onto.f]) + np.abs([onto.a - 1, onto.e - 1]) * size
        same = (source.width, source.height) == (main.width, main.height)
        self._same = bool(same and (shift < ALIGNED).all())
        self._rows = None if self._same and source.block == main.block else BlockRows(source)
        self.pixel_bytes = source.dtype.itemsize * onto.a * onto.e

    def read(self, bounds: Rectangle) -> Strip:
        """Decode a rectangle; data and mask are (h, w)."""
        x0, y0, x1, y1 = bounds
        columns, rows = self._nearest(x0, x1, 0), self._nearest(y0, y1, 1)
        inner = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        try:
            strip = (self._rows or self._source).read(*inner)
        except RasterError as error:
            raise RasterError(f"band '{self._name}': {error}") from error
        data, valid = strip.data[0], strip.valid
        if not self._same:
            pick = np.ix_(rows - inner[1], columns - inner[0])
            data, valid = data[pick], None if valid is None else valid[pick]
        damaged = tuple(self._outwards(bad) for bad in strip.damaged)
        return Strip(bounds, data, valid, damaged)

    def _nearest(self, start: int, stop: int, axis: int) -> NDArray[np.int64]:
        """Column or row of this raster under the middle of each pixel."""
        if self._same:
            return np.arange(start, stop)
        scale, offset = (self._onto.a, self._onto.c) if axis == 0 else (self._onto.e, self._onto.f)
        last = (self._source.width if axis == 0 else self._source.height) - 1
        # A middle may lie on an edge: rounding must not decide, differently for each.
        there = np.floor((np.arange(start, stop) + 0.5) * scale + offset + 1e-6)
        return np.clip(there, 0, last).astype(np.int64)

    def _outwards(self, bad: Rectangle) -> Rectangle:
        if self._same:
            return bad
        left, top = ~self._onto @ (bad[0], bad[1])
        right, bottom = ~self._onto @ (bad[2], bad[3])
        return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _opened(open_part: OpenPart, name: str, resolution: float | None) -> RasterSource:
    try:
        return open_part(name, BandSelection((name,), use="stack"), resolution)
    except RasterError as error:
        raise RasterError(f"band '{name}': {error}") from error


def _pixel_size(source: RasterSource) -> float:
    """To compare by: of the CRS's units, or where there is none of the file's size."""
    if source.transform is None:
        return 1 / (source.full_size[0] * source.full_size[1])
    return abs(source.transform.determinant)


def _level_gsd(source: RasterSource) -> float:
    level = _level_transform(source)
    return ground_sample_distance(level, (source.width, source.height), source.crs)


def _level_transform(source: RasterSource) -> Affine:
    full = source.transform if source.transform is not None else Affine.identity()
    return full @ _scale(source)


def _scale(source: RasterSource) -> Affine:
    return Affine.scale(source.full_size[0] / source.width, source.full_size[1] / source.height)


def _onto(name: str, source: RasterSource, main_name: str, main: RasterSource) -> Affine:
    """From pixels of the ruling level to pixels of another raster's level.

    Raises
    ------
    RasterError
        Unless both have one CRS, and extents that differ by less than a pixel.
    """
    there, here = source.full_size, main.full_size
    full = Affine.scale(there[0] / here[0], there[1] / here[1])
    fits = _same_crs(source.crs, main.crs) and (source.transform is None) == (
        main.transform is None
    )
    if fits and source.transform is not None and main.transform is not None:
        full = ~source.transform @ main.transform
        corners = np.array([full @ corner for corner in ((0, 0), (here[0], 0), (0, here[1]), here)])
        wanted = np.array([(0, 0), (there[0], 0), (0, there[1]), there])
        # Less than a pixel: panchromatic bands begin half a pixel beside the others. The same turn, too:
        # along a side the other coordinate stays what it was.
        fits = (
            bool((np.abs(corners - wanted) < 1).all())
            and max(abs(full.b) * here[1], abs(full.d) * here[0]) < ALIGNED
        )
    elif fits:
        fits = there == here
    if not fits:
        raise RasterError(
            f"bands '{main_name}' and '{name}' don't share one CRS and extent ({_place(main)}; "
            f"{_place(source)}), so they can't be swept as one scene; crop models may take the other by "
            "crop_models.asset."
        )
    return ~_scale(source) @ full @ _scale(main)


def _same_crs(one: str | None, other: str | None) -> bool:
    if one is None or other is None or one == other:
        return one == other
    return CRS.from_user_input(one).equals(CRS.from_user_input(other))


def _place(source: RasterSource) -> str:
    wide, high = source.full_size
    if source.transform is None:
        return f"{wide} × {high} pixels without georeferencing"
    crs = source.crs or "no CRS"
    x, y = source.transform.c, source.transform.f
    return f"{crs if len(crs) < 32 else 'a CRS of its own'}, {wide} × {high} pixels from {x:.12g}, {y:.12g}"
