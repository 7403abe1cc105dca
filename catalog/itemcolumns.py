"""Complete rows of stac-geoparquet, read by columns: some ten times as fast as item by item.

A row is complete if all that a scene must know stands in its columns, in a form that needs no second
look. What is made of it is what `item_scene` makes of the item; the tests hold both against each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ._columnvalues import as_python, as_text
from .geoparquet import item_of_row
from .hrefs import is_remote
from .items import crs_text
from .scene import Scene

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from shapely.geometry.base import BaseGeometry

_BATCH = 4096
_CODES = ("proj:code", "proj:epsg")
_GRID = ("proj:transform", "proj:shape")
_LONGER = ("proj:wkt2", "proj:projjson")  # of a CRS without a code; left to `item_scene`
_FLOATS, _NUMBERS = {float}, {int, float}
_POLYGONS = (3, 6)  # shapely's type ids of Polygon and MultiPolygon


class CompleteRow(NamedTuple):
    """A scene but for its id."""

    item_id: str
    collection: str | None
    datetime: datetime
    href: str
    updated: str | None
    checksum: str | None
    footprint: BaseGeometry
    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]

    def scene(self, scene_id: str, asset: str) -> Scene:
        """Return the scene whose raster is the item's `asset`."""
        return Scene(
            scene_id,
            self.href,
            self.item_id,
            self.collection,
            asset,
            self.datetime,
            self.updated,
            self.checksum,
            self.footprint,
            self.crs,
            self.transform,
            self.shape,
        )


def read_rows(file: Path | BinaryIO, asset: str) -> Iterator[CompleteRow | dict[str, Any]]:
    """Yield each row of a stac-geoparquet file: complete ones as such, others as items.

    Parameters
    ----------
    file
        With the columns that `read_items` demands.
    asset
        Key of the asset that scenes are made of.
    """
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    columns = _columns(parquet.schema_arrow, asset)
    for group in range(parquet.num_row_groups):
        whole = _Whole(parquet, group)
        if columns is None:
            yield from whole.items()
            continue
        batches = parquet.iter_batches(_BATCH, row_groups=[group], columns=columns)
        for number, batch in enumerate(batches):
            for place, row in enumerate(_complete(batch, asset)):
                yield whole.item(number, place) if row is None else row


class _Whole:
    """Items of a row group with all their columns, which are only read if one is asked for."""

    def __init__(self, parquet: pq.ParquetFile, group: int) -> None:
        self._batches = parquet.iter_batches(_BATCH, row_groups=[group])
        self._number = -1
        self._batch: Any = None

    def items(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            for row in batch.to_pylist():
                yield item_of_row(row)

    def item(self, number: int, place: int) -> dict[str, Any]:
        """Item `place` of batch `number`; batches are asked for in order."""
        while self._number < number:
            self._batch = next(self._batches)
            self._number += 1
        return item_of_row(self._batch.slice(place, 1).to_pylist()[0])


def _columns(schema: pa.Schema, asset: str) -> list[str] | None:
    """The columns that tell of scenes; None if no row can be complete."""
    import pyarrow as pa

    names = set(schema.names)
    if not {"id", "geometry", "assets", "datetime"} <= names:
        return None
    assets, time = schema.field("assets").type, schema.field("datetime").type
    if not pa.types.is_struct(assets) or assets.get_field_index(asset) < 0 or "." in asset:
        return None
    fields = assets.field(asset).type
    if not pa.types.is_timestamp(time) or time.tz is None or time.unit == "ns":
        return None
    if not pa.types.is_struct(fields):
        return None
    of_asset = {field.name for field in fields}
    # Buckets that want to be asked in their own way are left to `item_scene`.
    if "href" not in of_asset or any(name.startswith("storage:") for name in names | of_asset):
        return None
    wanted = ("href", "updated", "file:checksum", *_CODES, *_GRID, *_LONGER)
    top = ("id", "collection", "datetime", "geometry", "updated", *_CODES, *_GRID, *_LONGER)
    return [name for name in top if name in names] + [
        f"assets.{asset}.{name}" for name in wanted if name in of_asset
    ]


def _complete(batch: pa.RecordBatch, asset: str) -> Iterator[CompleteRow | None]:
    """The rows of a batch, None for those that aren't complete."""
    own = _child(batch["assets"], asset)

    def of_asset(name: str) -> list[Any]:
        there = own.type.get_field_index(name) >= 0
        return as_python(_child(own, name)) if there else [None] * len(batch)

    def of_item(name: str, convert: Callable[[pa.Array], list[Any]] = as_python) -> list[Any]:
        there = name in batch.schema.names
        return convert(batch[name]) if there else [None] * len(batch)

    def either(name: str, convert: Callable[[pa.Array], list[Any]] = as_python) -> Iterable[Any]:
        if own.type.get_field_index(name) < 0:
            return of_item(name, convert)
        of_own = convert(_child(own, name))
        return (a or b for a, b in zip(of_own, of_item(name, convert), strict=True))

    codes = zip(
        *(of_asset(name) for name in (*_CODES, *_LONGER)),
        *(of_item(name) for name in _CODES),
        strict=True,
    )
    rows = zip(
        of_item("id"),
        of_item("collection"),
        of_item("datetime"),
        of_asset("href"),
        either("updated", as_text),
        of_asset("file:checksum"),
        _footprints(of_item("geometry")),
        (_crs(*some) for some in codes),
        either("proj:transform"),
        either("proj:shape"),
        strict=True,
    )
    for (
        item_id,
        collection,
        time,
        href,
        updated,
        checksum,
        footprint,
        crs,
        transform,
        shape,
    ) in rows:
        numbers = _affine(transform)
        if (
            item_id is None
            or time is None
            or footprint is None
            or crs is None
            or numbers is None
            or not href
            or not (href.startswith("https://") or ("://" in href and is_remote(href)))
            or not isinstance(shape, list)
            or len(shape) != 2
        ):
            yield None
            continue
        yield CompleteRow(
            item_id,
            collection,
            time if time.tzinfo is UTC else time.astimezone(UTC),
            href,
            updated,
            checksum,
            footprint,
            crs,
            numbers,
            (int(shape[0]), int(shape[1])),
        )


def _child(values: pa.Array, name: str) -> pa.Array:
    """A field of a struct, null where the struct is."""
    import pyarrow.compute as pc

    return pc.struct_field(values, [name])  # type: ignore[attr-defined]


def _footprints(wkb: list[bytes | None]) -> list[BaseGeometry | None]:
    """Plain valid polygons within the globe; None for all else."""
    import numpy as np
    import shapely

    blobs: Any = np.array(wkb, object)
    found: Any = shapely.from_wkb(blobs, on_invalid="ignore")
    if (shapely.get_coordinate_dimension(found) > 2).any():
        found = shapely.force_2d(found)
    west, _, east, _ = shapely.bounds(found).T
    plain = np.isin(shapely.get_type_id(found), _POLYGONS) & shapely.is_valid(found)
    # Nothing that might jump across the antimeridian. Comparisons with NaN are false.
    plain &= (west >= -180) & (east <= 180) & (east - west <= 180)
    return [shape if good else None for shape, good in zip(found, plain, strict=True)]


def _crs(own: Any, number: Any, wkt: Any, projjson: Any, code: Any, epsg: Any) -> str | None:
    if own or number:
        named = own or number
    elif wkt or projjson:
        return None
    else:
        named = code or epsg
    if isinstance(named, str | int):
        return _named(named) if named else None
    return crs_text(json.dumps(named)) if named else None


@lru_cache(maxsize=1024, typed=True)
def _named(code: str | int) -> str | None:
    return crs_text(json.dumps(code))


def _affine(transform: Any) -> tuple[float, float, float, float, float, float] | None:
    if not isinstance(transform, list) or len(transform) not in (6, 9):
        return None
    kinds = set(map(type, transform))
    if kinds != _FLOATS:
        if not kinds <= _NUMBERS:
            return None
        transform = map(float, transform)
    a, b, c, d, e, f, *_ = transform
    return a, b, c, d, e, f
