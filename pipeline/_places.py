"""Where scenes lie and what ranks them: all that ownership must know, from scenes or from a plan."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

if TYPE_CHECKING:
    import pyarrow as pa
    from shapely.geometry.base import BaseGeometry

    from ..catalog import Scene
    from ..catalog.planfile import PlanFile

GRID = struct.Struct("6d2q")
_COLUMNS = (
    "geosweep:scene_id",
    "datetime",
    "assets.data.updated",
    "proj:transform",
    "proj:shape",
    "proj:code",
    "proj:wkt2",
    "geosweep:error",
    "bbox",
    "geometry",
)
_SIDES = ("xmin", "xmax", "ymin", "ymax")

Row = tuple[Any, ...]
"""Number; west, east, south, north in degrees; the fields of a `Place`, its footprint as WKB."""


class Place(NamedTuple):
    """Where a scene lies, and what ranks it.

    Parameters
    ----------
    id, updated, crs
        As in `Scene`.
    time
        Seconds since 1970; None for an undated scene.
    grid
        Transform and shape as `GRID` packs them; None where one is not known.
    footprint
        In EPSG:4326.
    """

    id: str
    time: float | None
    updated: str | None
    grid: bytes | None
    crs: str | None
    footprint: BaseGeometry

    @property
    def rank(self) -> tuple[float, list[int], str]:
        """Sort key, best first: latest acquisition, then latest `updated`, then id."""
        updated = [-ord(character) for character in self.updated or ""]
        return (math.inf if self.time is None else -self.time, [*updated, 1], self.id)


def place_of(scene: Scene) -> Place | None:
    """Return a scene's place; None for one that can own nothing."""
    if scene.footprint is None or scene.error is not None or scene.footprint.is_empty:
        return None
    grid = None
    if scene.transform is not None and scene.shape is not None:
        grid = GRID.pack(*scene.transform, *scene.shape)
    time = None if scene.datetime is None else scene.datetime.timestamp()
    return Place(scene.id, time, scene.updated, grid, scene.crs, scene.footprint)


def rows_of_scenes(scenes: Iterable[Scene]) -> Iterator[Row]:
    """Yield a row for each scene that can own something."""
    for number, scene in enumerate(scenes):
        place = place_of(scene)
        if place is not None:
            west, south, east, north = place.footprint.bounds
            *fields, footprint = place
            yield (number, west, east, south, north, *fields, shapely.to_wkb(footprint))


def rows_of_plan(plan: PlanFile) -> Iterator[Row]:
    """Yield the same rows for all scenes of a plan, retained ones too, without making scenes."""
    start = 0
    for batch in plan.batches(_COLUMNS):
        for row in _rows(batch, start):
            if row[1] is not None:
                yield row
        start += len(batch)


def _rows(batch: pa.RecordBatch, start: int) -> Iterator[Row]:
    codes, texts = batch["proj:code"].to_pylist(), batch["proj:wkt2"].to_pylist()
    times = batch["datetime"].cast("int64").to_pylist()
    # A scene that can't be read owns nothing, as if it lay nowhere.
    failed = [error is not None for error in batch["geosweep:error"].to_pylist()]
    box = batch["bbox"]
    bounds = [box.field(side).to_pylist() for side in _SIDES]
    there = box.is_valid().to_pylist()
    west = [
        value if known and not bad else None
        for value, known, bad in zip(bounds[0], there, failed, strict=True)
    ]
    return zip(
        range(start, start + len(batch)),
        west,
        *bounds[1:],
        batch["geosweep:scene_id"].to_pylist(),
        (None if time is None else time / 1_000_000 for time in times),
        batch["assets"].field("data").field("updated").to_pylist(),
        _grids(batch["proj:transform"], batch["proj:shape"]),
        (text if code is None else code for code, text in zip(codes, texts, strict=True)),
        batch["geometry"].to_pylist(),
        strict=True,
    )


def _grids(transforms: pa.ListArray, shapes: pa.ListArray) -> list[bytes | None]:
    if transforms.null_count or shapes.null_count:
        pairs = zip(transforms.to_pylist(), shapes.to_pylist(), strict=True)
        return [None if a is None or b is None else GRID.pack(*a, *b) for a, b in pairs]
    parts = (
        transforms.flatten().to_numpy().reshape(-1, 6).view(np.uint8),
        shapes.flatten().to_numpy().reshape(-1, 2).view(np.uint8),
    )
    packed = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return packed.view(f"V{GRID.size}").ravel().tolist()
