"""Outlines of pixel boxes on the map, as flat arrays: no geometry is made of a plain box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely
from pyproj import CRS

from ._antimeridian import LONLAT, mend, torn
from ._geo import to_map, transformer

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_PROJECTED = 65_536
BOX_WKB = np.dtype(
    [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)
"""A polygon of four corners as little-endian WKB, which is all that a sweep writes, but for a few."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """Boxes on the map.

    Parameters
    ----------
    corners
        float64 (N, 4, 2), counter-clockwise when north is up.
    parted
        Those that reach across the antimeridian, by their number: multipolygons of two parts, as RFC
        7946 wants it.
    """

    corners: NDArray[np.float64]
    parted: dict[int, BaseGeometry]

    def bounds(self) -> NDArray[np.float64]:
        """(N, 4): xmin, ymin, xmax, ymax."""
        bounds = np.concatenate([self.corners.min(axis=1), self.corners.max(axis=1)], axis=1)
        for number, shape in self.parted.items():
            bounds[number] = shape.bounds
        return bounds

    def wkb(self, which: NDArray[np.integer]) -> pa.Array:
        """Well-known binary of the boxes numbered `which`, as many as take less than 2 GB."""
        values = np.empty(len(which), BOX_WKB)
        values["order"], values["kind"], values["rings"], values["points"] = 1, 3, 1, 5
        values["xy"][:, :4] = self.corners[which]
        values["xy"][:, 4] = values["xy"][:, 0]
        array = fixed_width(pa.binary(), values.view(np.uint8), BOX_WKB.itemsize)
        others = self.parted and np.flatnonzero(np.isin(which, list(self.parted))).tolist()
        if not others:
            return array
        plain = array.to_pylist()
        for row in others:
            plain[row] = shapely.to_wkb(self.parted[int(which[row])])
        return pa.array(plain, pa.binary())


def outlines_of(
    boxes: NDArray[np.floating], transform: Affine | None, crs: str | None, target: str | None
) -> Outlines:
    """Outlines of pixel boxes (N, 4) in the target CRS; with `target` None in pixel coordinates.

    Raises
    ------
    ValueError
        If there is a target and the raster isn't georeferenced.
    """
    if target is not None and (transform is None or crs is None):
        raise ValueError("the raster has no georeferencing")
    corners = np.empty((len(boxes), 4, 2))
    parted: dict[int, BaseGeometry] = {}
    for start in range(0, len(boxes), _PROJECTED):  # what lies between is large
        some = slice(start, start + _PROJECTED)
        edges = boxes[some].astype(np.float64)
        x, y = edges[:, [0, 2, 2, 0]], edges[:, [3, 3, 1, 1]]
        if transform is not None and crs is not None and target is not None:
            x, y, others = _on_map(x, y, transform, crs, target)
            parted |= {start + row: shape for row, shape in others.items()}
        corners[some, :, 0], corners[some, :, 1] = x, y
    return Outlines(corners, parted)


def _on_map(
    x: NDArray[np.float64], y: NDArray[np.float64], transform: Affine, crs: str, target: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[int, BaseGeometry]]:
    """Corners (N, 4) from pixels to the target CRS, and the boxes that it tears apart."""
    there, wanted = to_map(transform, x, y), CRS.from_user_input(target)
    x, y = there
    if not CRS.from_user_input(crs).equals(wanted):
        x, y = transformer(crs, target).transform(x, y)
    rows = np.flatnonzero(torn(x, wanted))
    if not len(rows):
        return x, y, {}
    shapes = np.empty(len(rows), object)
    lonlat = None
    if not wanted.is_geographic:
        lonlat = transformer(crs, LONLAT).transform(there[0][rows], there[1][rows])
    mend(shapes, x[rows], y[rows], lonlat, wanted)
    return x, y, dict(zip(rows.tolist(), shapes.tolist(), strict=True))


def fixed_width(kind: pa.DataType, values: bytes | NDArray[np.uint8], width: int) -> pa.Array:
    """Text or binary of one length each, out of their bytes one after the other."""
    buffer = pa.py_buffer(values)
    count = buffer.size // width
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(offsets), buffer])
