"""Scenes as rows of a stac-geoparquet file, and back, a batch at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from ._planschema import schema
from .hrefs import public_href, scrub
from .intervals import parse_time
from .scene import Access, Scene, SideAsset

if TYPE_CHECKING:
    import pyarrow as pa
    from shapely.geometry.base import BaseGeometry

_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/storage/v1.0.0/schema.json",
]
_MULTIHASH = re.compile(r"[0-9a-f]{10,}")
_SPECIAL = re.compile(r"[?@#]")


def unsigned(href: str) -> str:
    """Return `href` as it may stand in an output."""
    # Most hrefs have nothing that could be dropped, and a plan has a million of them.
    return public_href(href) if _SPECIAL.search(href) else href


def to_rows(scenes: Sequence[Scene], *, retained: bool, frozen: datetime) -> pa.RecordBatch:
    """Return scenes as rows of `_planschema.schema`, without anything that grants access.

    Parameters
    ----------
    scenes
        Some thousands at most.
    retained
        Whether they are gone from the source.
    frozen
        Stands for the time of scenes that have none, as STAC demands one.
    """
    import pyarrow as pa

    count = len(scenes)
    footprints = np.array([scene.footprint for scene in scenes], dtype=object)
    bounds = shapely.bounds(footprints)
    codes = [scene.crs is not None and _is_code(scene.crs) for scene in scenes]
    checksums = [_checksum(scene.checksum) for scene in scenes]
    unknown = [scene.datetime is None for scene in scenes]
    fallback = [frozen if missing else None for missing in unknown]
    columns: dict[str, Any] = {
        "id": [scene.item_id for scene in scenes],
        "collection": [scene.collection for scene in scenes],
        "datetime": [scene.datetime for scene in scenes],
        "start_datetime": fallback,
        "end_datetime": fallback,
        "updated": [moment(scene.updated) for scene in scenes],
        "proj:code": [s.crs if code else None for s, code in zip(scenes, codes, strict=True)],
        "proj:wkt2": [None if code else s.crs for s, code in zip(scenes, codes, strict=True)],
        "proj:transform": [scene.transform for scene in scenes],
        "proj:shape": [scene.shape for scene in scenes],
        "geosweep:scene_id": [scene.id for scene in scenes],
        "geosweep:asset": [scene.asset for scene in scenes],
        "geosweep:error": [None if s.error is None else scrub(s.error) for s in scenes],
        "geosweep:datetime_unknown": [missing or None for missing in unknown],
        "geosweep:assets": [_others(scene.assets) for scene in scenes],
        "geosweep:bands": [_others(scene.bands) for scene in scenes],
        "geometry": shapely.to_wkb(footprints).tolist(),
    }
    asset = {
        "href": [unsigned(scene.href) for scene in scenes],
        "updated": [scene.updated for scene in scenes],
        "file:checksum": [checksum for checksum, _ in checksums],
        "geosweep:stamp": [stamp for _, stamp in checksums],
        "storage:region": [scene.access.region for scene in scenes],
        "storage:requester_pays": [scene.access.requester_pays for scene in scenes],
    }
    fields = schema()
    made = {name: pa.array(values, fields.field(name).type) for name, values in columns.items()}
    made |= _constants(count)
    made["geosweep:retained"] = pa.repeat(pa.scalar(retained), count)
    of_asset = list(fields.field("assets").type.field("data").type)
    parts = {"roles": made.pop("roles")}
    parts |= {
        field.name: pa.array(asset[field.name], field.type)
        for field in of_asset
        if field.name in asset
    }
    data = pa.StructArray.from_arrays([parts[field.name] for field in of_asset], fields=of_asset)
    made["assets"] = pa.StructArray.from_arrays([data], fields=list(fields.field("assets").type))
    empty = pa.array(np.isnan(bounds[:, 0]))
    made["bbox"] = pa.StructArray.from_arrays(
        [pa.array(bounds[:, side]) for side in range(4)],
        fields=list(fields.field("bbox").type),
        mask=empty,
    )
    return pa.record_batch([made[name] for name in fields.names], schema=fields)


@lru_cache(maxsize=4)
def _constants(count: int) -> dict[str, pa.Array]:
    """Columns that are the same for each scene."""
    import pyarrow as pa

    def repeated(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), count)

    fields = schema()
    same = {"type": "Feature", "stac_version": "1.1.0", "stac_extensions": _EXTENSIONS, "links": []}
    made = {name: repeated(value, fields.field(name).type) for name, value in same.items()}
    return made | {"roles": repeated(["data"], pa.list_(pa.string()))}


def from_rows(batch: pa.RecordBatch) -> Iterator[tuple[Scene, bool]]:
    """Yield the scenes of some rows, and whether each is retained."""
    asset = batch.column("assets").field("data")

    def column(name: str) -> list[Any]:
        return batch.column(name).to_pylist()

    def of_asset(name: str) -> list[Any]:
        return asset.field(name).to_pylist()

    footprints = shapely.from_wkb(np.array(column("geometry"), dtype=object))
    access = zip(of_asset("storage:region"), of_asset("storage:requester_pays"), strict=True)
    rows = zip(
        column("geosweep:scene_id"),
        of_asset("href"),
        column("id"),
        column("collection"),
        column("geosweep:asset"),
        column("datetime"),
        of_asset("updated"),
        _either(of_asset("file:checksum"), of_asset("geosweep:stamp")),
        footprints.tolist(),
        _either(column("proj:code"), column("proj:wkt2")),
        _tuples(batch.column("proj:transform"), 6),
        _tuples(batch.column("proj:shape"), 2),
        column("geosweep:error"),
        column("geosweep:assets"),
        (_ACCESS if pair == (None, False) else Access(*pair) for pair in access),
        column("geosweep:bands"),
        strict=True,
    )
    for row, gone in zip(rows, column("geosweep:retained"), strict=True):
        yield _scene(*row), gone


def _scene(
    scene_id: str,
    href: str,
    item_id: str,
    collection: str | None,
    asset: str | None,
    time: datetime | None,
    updated: str | None,
    checksum: str | None,
    footprint: BaseGeometry | None,
    crs: str | None,
    transform: Any,
    shape: Any,
    error: str | None,
    assets: list[dict[str, Any]] | None,
    access: Access,
    bands: list[dict[str, Any]] | None,
) -> Scene:
    return Scene(
        scene_id,
        href,
        item_id,
        collection,
        asset,
        None if time is None else time.replace(tzinfo=UTC),
        updated,
        checksum,
        footprint,
        crs,
        transform,
        shape,
        error,
        _side_assets(assets),
        access,
        _side_assets(bands),
    )


def moment(updated: str | None) -> datetime | None:
    """Return when a source says that something changed, or None where that is no time."""
    try:
        return None if updated is None else parse_time(updated)
    except (ValueError, OverflowError):
        return None


_ACCESS = Access()


def _is_code(crs: str) -> bool:
    return len(crs) < 64 and "[" not in crs


def _checksum(checksum: str | None) -> tuple[str | None, str | None]:
    """As the file extension's checksum, which is a multihash, or as our own stamp."""
    if checksum is not None and _MULTIHASH.fullmatch(checksum):
        return checksum, None
    return None, checksum


def _tuples(lists: pa.ListArray, length: int) -> Iterator[tuple[Any, ...] | None]:
    """The rows of a column of short lists; pyarrow's own conversion takes five times as long."""
    if lists.null_count:
        return (None if values is None else tuple(values) for values in lists.to_pylist())
    return map(tuple, lists.flatten().to_numpy().reshape(-1, length).tolist())


def _either(these: list[Any], those: list[Any]) -> Iterator[Any]:
    for this, that in zip(these, those, strict=True):
        yield that if this is None else this


def _others(assets: Mapping[str, SideAsset]) -> list[dict[str, Any]] | None:
    if not assets:
        return None
    return [
        {
            "key": key,
            "href": unsigned(other.href),
            "updated": other.updated,
            "file:checksum": other.checksum,
            "storage:region": other.access.region,
            "storage:requester_pays": other.access.requester_pays,
        }
        for key, other in assets.items()
    ]


def _side_assets(rows: list[dict[str, Any]] | None) -> dict[str, SideAsset]:
    return {
        row["key"]: SideAsset(
            row["href"],
            row["updated"],
            row["file:checksum"],
            Access(row["storage:region"], row["storage:requester_pays"]),
        )
        for row in rows or ()
    }
