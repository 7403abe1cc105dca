"""What a grid of detections is: its cells and CRS, and the layers of numbers on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pyproj import CRS, Proj
from pyproj.exceptions import CRSError

from ..catalog.errors import JobError
from ._cells import TILE, Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

EQUAL_AREA = "EPSG:6933"


@dataclass(frozen=True, slots=True)
class GridSpec:
    """What a grid is to be.

    Parameters
    ----------
    cell
        Side of a cell in units of `crs`.
    crs
        Of the grid.
    by
        Text column whose values are counted each by itself; None for none.

    Raises
    ------
    JobError
        If a value makes no sense.
    """

    cell: float = 100.0
    crs: str = EQUAL_AREA
    by: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cell) and self.cell > 0):
            raise JobError(f"cell is {self.cell}, but must be a length above 0 in units of crs.")
        try:
            parsed = CRS.from_user_input(self.crs)
        except CRSError:
            raise JobError(
                f"crs is {self.crs!r}, which is no CRS that PROJ knows; write a code such as "
                f"{EQUAL_AREA}."
            ) from None
        if not (parsed.is_geographic or parsed.is_projected):
            raise JobError(
                f"crs is {self.crs!r}, which is neither projected nor geographic; take one such as "
                f"{EQUAL_AREA}."
            )
        if parsed.is_geographic and self.cell > 10:
            raise JobError(
                f"cell is {self.cell:g}, but {self.crs} counts in degrees; take a small cell, or a "
                f"CRS in metres such as {EQUAL_AREA}, whose cells all have the same area."
            )

    @property
    def unit(self) -> str:
        """The unit of `cell`, as one writes it."""
        name = CRS.from_user_input(self.crs).axis_info[0].unit_name
        return {"metre": "m", "degree": "°"}.get(name, name)

    @property
    def code(self) -> str | None:
        """Authority and code of `crs`, such as EPSG:6933; None if it has none."""
        authority = CRS.from_user_input(self.crs).to_authority(min_confidence=100)
        return None if authority is None else ":".join(authority)

    @property
    def wkt(self) -> str:
        """`crs` as WKT2."""
        return CRS.from_user_input(self.crs).to_wkt()


def areal_spread(crs: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """How many times as much ground a cell holds at one of some places as at another; 1 for equal area.

    Parameters
    ----------
    crs
        Of the grid.
    x, y
        Map coordinates of the places; those that are none on earth don't count.
    """
    if CRS.from_user_input(crs).is_geographic:
        scales = 1 / np.cos(np.radians(y[np.abs(y) < 90]))
    else:
        projection = Proj(crs)
        lon, lat = projection(x, y, inverse=True)
        there = np.isfinite(lon) & np.isfinite(lat)
        scales = np.asarray(projection.get_factors(lon[there], lat[there]).areal_scale)
    scales = scales[np.isfinite(scales)]
    return float(scales.max() / scales.min()) if len(scales) else 1.0


class Layer(NamedTuple):
    """One number for each cell.

    Parameters
    ----------
    name
        As in the xarray dataset; ``count_by`` for those with a `value`.
    text
        What it is.
    unit
        As STAC and GDAL have it; None for plain numbers.
    mean
        Whether it is a mean: NaN where there is nothing, while others are 0 there.
    code
        Which value of the `by` column it counts.
    value
        That value.
    band
        Name of the band in files.
    """

    name: str
    text: str
    unit: str | None = None
    mean: bool = False
    code: int | None = None
    value: str | None = None
    band: str = ""


_LAYERS = (
    Layer("count", "number of detections", band="count"),
    Layer("score_mean", "mean score of the detections", mean=True, band="score_mean"),
    Layer("area_m2_sum", "area of all detections' boxes", "m2", band="area_m2_sum"),
    Layer("area_m2_mean", "mean area of a detection's box", "m2", mean=True, band="area_m2_mean"),
)


def layers_of(by: str | None, codes: dict[str | None, int]) -> list[Layer]:
    """The fixed layers, then one for each value of the `by` column, sorted, null last."""
    values = sorted(codes, key=lambda value: (value is None, value or ""))
    shown = {value: "(none)" if value is None else value for value in values}
    return [
        *_LAYERS,
        *(
            Layer(
                "count_by",
                f"number of detections with {by} {shown[value]}",
                code=codes[value],
                value=shown[value],
                band=f"count {by}={shown[value]}",
            )
            for value in values
        ),
    ]


def layer_values(layer: Layer, tile: Tile) -> NDArray[np.float64]:
    """A layer's numbers in a tile; float64 (TILE, TILE), 0 or for means NaN where there is nothing."""

    def summed(name: str) -> NDArray[np.float64]:
        weights = tile.entries[name]
        if layer.code is not None:
            weights = np.where(tile.codes == layer.code, weights, 0)
        sums = np.bincount(tile.cells, weights, minlength=TILE * TILE)
        return sums.astype(np.float64).reshape(TILE, TILE)

    if layer.name in ("count", "count_by"):
        return summed("count")
    quantity = "score" if layer.name == "score_mean" else "area"
    total = summed(quantity)
    if not layer.mean:
        return total
    number = summed(f"{quantity}s")
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, total / number, np.nan)
