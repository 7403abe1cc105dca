"""A raster of one band on another one's grid, by the nearest pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from pyproj import CRS

from ..catalog.errors import RasterError
from ._blockrows import ReadEach, by_block_rows
from ._geo import ground_sample_distance
from .pixels import Rectangle, Strip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .raster import RasterSource

ALIGNED = 0.01
"""Pixels by which two grids may differ to count as one."""


class Aligned:
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
        self._by_rows = not (self._same and source.block == main.block)
        self.pixel_bytes = source.dtype.itemsize * onto.a * onto.e

    def read_each(
        self, rectangles: Sequence[Rectangle], reading: Callable[[RasterSource], ReadEach]
    ) -> Generator[Strip]:
        """Decode rectangles in order, as `reading` reads the raster; data and masks are (h, w)."""
        read = reading(self._source)
        inner = [self._inner(bounds) for bounds in rectangles]
        strips = by_block_rows(self._source, inner, read) if self._by_rows else read(inner)
        try:
            for bounds in rectangles:
                yield self._onto_grid(bounds, next(strips))
        except RasterError as error:
            raise RasterError(f"band '{self._name}': {error}") from error
        finally:
            strips.close()

    def _inner(self, bounds: Rectangle) -> Rectangle:
        """What a rectangle of the ruling grid takes of this raster."""
        columns, rows = self._nearest(bounds[::2], 0), self._nearest(bounds[1::2], 1)
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def _onto_grid(self, bounds: Rectangle, strip: Strip) -> Strip:
        data, valid = strip.data[0], strip.valid
        if not self._same:
            left, top, _, _ = strip.bounds
            columns, rows = self._nearest(bounds[::2], 0), self._nearest(bounds[1::2], 1)
            pick = np.ix_(rows - top, columns - left)
            data, valid = data[pick], None if valid is None else valid[pick]
        damaged = tuple(self._outwards(bad) for bad in strip.damaged)
        return Strip(bounds, data, valid, damaged)

    def _nearest(self, span: tuple[int, ...], axis: int) -> NDArray[np.int64]:
        """Column or row of this raster under the middle of each pixel."""
        if self._same:
            return np.arange(*span)
        scale, offset = (self._onto.a, self._onto.c) if axis == 0 else (self._onto.e, self._onto.f)
        last = (self._source.width if axis == 0 else self._source.height) - 1
        # A middle may lie on an edge: rounding must not decide, differently for each.
        there = np.floor((np.arange(*span) + 0.5) * scale + offset + 1e-6)
        return np.clip(there, 0, last).astype(np.int64)

    def _outwards(self, bad: Rectangle) -> Rectangle:
        if self._same:
            return bad
        left, top = ~self._onto @ (bad[0], bad[1])
        right, bottom = ~self._onto @ (bad[2], bad[3])
        return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def pixel_size(source: RasterSource) -> float:
    """To compare by: of the CRS's units, or where there is none of the file's size."""
    if source.transform is None:
        return 1 / (source.full_size[0] * source.full_size[1])
    return abs(source.transform.determinant)


def level_gsd(source: RasterSource) -> float:
    """GSD, in metres, of the level that is read."""
    level = _level_transform(source)
    return ground_sample_distance(level, (source.width, source.height), source.crs)


def _level_transform(source: RasterSource) -> Affine:
    full = source.transform if source.transform is not None else Affine.identity()
    return full @ _scale(source)


def _scale(source: RasterSource) -> Affine:
    return Affine.scale(source.full_size[0] / source.width, source.full_size[1] / source.height)


def onto(name: str, source: RasterSource, main_name: str, main: RasterSource) -> Affine:
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
