"""Where scenes lie and what ranks them: all that ownership must know, from scenes or from a plan."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
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
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_BATCH = 4096

Land = tuple[bytes | None, str | None, bytes]
"""`grid`, `crs` and `wkb` of a `Place`."""


class Places(NamedTuple):
    """Some scenes that can own something.

    Parameters
    ----------
    numbers
        Which of all scenes they are, int64 (N,).
    boxes
        West, south, east, north in degrees, float64 (N, 4).
    rows
        The fields of a `Place` for each, but for the footprint.
    """

    numbers: NDArray[np.int64]
    boxes: NDArray[np.float64]
    rows: Iterable[tuple[Any, ...]]


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
    wkb
        The same as bytes, which are faster to compare.
    """

    id: str
    time: float | None
    updated: str | None
    grid: bytes | None
    crs: str | None
    wkb: bytes
    footprint: BaseGeometry

    @property
    def land(self) -> Land:
        """What decides where its border lies."""
        return self.grid, self.crs, self.wkb

    @property
    def rank(self) -> tuple[float, list[int], str]:
        """Sort key, best first: latest acquisition, then latest `updated`, then id."""
        updated = [-ord(character) for character in self.updated or ""]
        return (math.inf if self.time is None else -self.time, [*updated, 1], self.id)

    def outranks(self, other: Place) -> bool:
        """Whether it ranks better than another."""
        if self.time is not None and other.time is not None and self.time != other.time:
            return self.time > other.time
        return self.rank < other.rank


def place_of(scene: Scene) -> Place | None:
    """Return a scene's place; None for one that can own nothing."""
    if scene.footprint is None or scene.error is not None or scene.footprint.is_empty:
        return None
    grid = None
    if scene.transform is not None and scene.shape is not None:
        grid = GRID.pack(*scene.transform, *scene.shape)
    time = None if scene.datetime is None else scene.datetime.timestamp()
    wkb = shapely.to_wkb(scene.footprint)
    return Place(scene.id, time, scene.updated, grid, scene.crs, wkb, scene.footprint)


def places_of_scenes(scenes: Iterable[Scene]) -> Iterator[Places]:
    """Yield those scenes that can own something, some thousands at a time."""
    numbered = ((number, place_of(scene)) for number, scene in enumerate(scenes))
    found = ((number, place) for number, place in numbered if place is not None)
    while some := list(islice(found, _BATCH)):
        numbers, places = zip(*some, strict=True)
        boxes = shapely.bounds(np.array([place.footprint for place in places], object))
        rows = (place[:-1] for place in places)
        yield Places(np.array(numbers, np.int64), boxes, rows)


def places_of_plan(plan: PlanFile) -> Iterator[Places]:
    """Yield the same for all scenes of a plan, retained ones too, without making scenes."""
    start = 0
    for batch in plan.batches(_COLUMNS):
        # A scene that can't be read owns nothing, as if it lay nowhere.
        there = _known(batch["bbox"]) & ~_known(batch["geosweep:error"])
        numbers = start + np.flatnonzero(there)
        start += len(batch)
        if len(numbers):
            yield _places(batch if there.all() else batch.filter(there), numbers)


def _places(batch: pa.RecordBatch, numbers: NDArray[np.int64]) -> Places:
    box = batch["bbox"]
    boxes = np.stack([box.field(side).to_numpy() for side in _SIDES], axis=1)
    codes, texts = batch["proj:code"].to_pylist(), batch["proj:wkt2"].to_pylist()
    times = batch["datetime"].cast("int64").to_pylist()
    rows = zip(
        batch["geosweep:scene_id"].to_pylist(),
        (None if time is None else time / 1_000_000 for time in times),
        batch["assets"].field("data").field("updated").to_pylist(),
        _grids(batch["proj:transform"], batch["proj:shape"]),
        (text if code is None else code for code, text in zip(codes, texts, strict=True)),
        batch["geometry"].to_pylist(),
        strict=True,
    )
    return Places(numbers, boxes, rows)


def _known(values: pa.Array) -> NDArray[np.bool_]:
    return values.is_valid().to_numpy(zero_copy_only=False)


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
