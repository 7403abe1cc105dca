"""Commit records to STAC items and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .hrefs import public_href, scrub
from .intervals import format_time, parse_time
from .lonlat import bounds
from .records import COLLECTION, SceneRecord
from .scene import Access, Scene, SideAsset
from .versions import link_predecessor, predecessor_of

if TYPE_CHECKING:
    import pystac
    from shapely.geometry.base import BaseGeometry

PARQUET = "application/vnd.apache.parquet"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
GEOMETRY = "geometry"
"""The column that the data files' geometry is in."""
_SHA2_256 = "1220"  # multihash: the code of the algorithm, and 32 bytes


def multihash(content: Path | bytes) -> str:
    """Return the SHA-256 of a local file, or of bytes, as ``file:checksum`` wants it."""
    if isinstance(content, bytes):
        return _SHA2_256 + hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return _SHA2_256 + hashlib.file_digest(file, "sha256").hexdigest()


def to_item(record: SceneRecord, *, collection_id: str) -> dict[str, Any]:
    """Return a record as a STAC 1.1 item, without secrets.

    The geometry is the scene's footprint, or null. Where the acquisition time is unknown,
    `datetime` is null, and the start and end that STAC then demands are the record's own time,
    flagged by ``geosweep:datetime_unknown``.

    Parameters
    ----------
    record
        What became of the scene.
    collection_id
        Of the collection in the output's ``collection.json``.
    """
    import pystac
    from shapely.geometry import mapping

    scene = record.scene
    footprint = scene.footprint
    item = pystac.Item(
        id=scene.id,
        geometry=None if footprint is None else _plain(mapping(footprint)),
        bbox=None if footprint is None else list(bounds(footprint)),
        datetime=scene.datetime,
        start_datetime=None if scene.datetime else record.created,
        end_datetime=None if scene.datetime else record.created,
        properties=_properties(record),
        stac_extensions=[PROJECTION, PROCESSING],
        collection=collection_id,
    )
    item.links = _links(scene)
    if record.data is not None:
        asset = pystac.Asset(f"../{record.data}", "Detections", media_type=PARQUET, roles=["data"])
        item.add_asset("data", asset)
        _describe_data(record, item, asset)
    if record.predecessor is not None:
        link_predecessor(item, scene.id, record.version, record.predecessor)
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def from_item(item: dict[str, Any]) -> SceneRecord:
    """Return the record that `to_item` made `item` from.

    The scene's href comes back in its public form.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the item was not made by `to_item`.
    """
    # Objects may be missing altogether: a snapshot in parquet can't hold empty ones.
    properties = item["properties"]
    data = item.get("assets", {}).get("data")
    bbox = properties.get("geosweep:data_bbox")
    return SceneRecord(
        scene=_scene(item),
        status=properties["geosweep:status"],
        version=properties["geosweep:version"],
        fingerprint=properties["geosweep:fingerprint"],
        counts=dict(properties.get("geosweep:counts", {})),
        timings=dict(properties.get("geosweep:timings", {})),
        data=data["href"].removeprefix("../") if data else None,
        rows=properties["geosweep:rows"],
        created=parse_time(properties["created"]),
        error=properties.get("geosweep:error"),
        bbox=tuple(bbox) if bbox else None,  # type: ignore[arg-type]
        software=dict(properties.get("processing:software", {})),
        models=dict(properties.get("geosweep:models", {})),
        extra=dict(properties.get("geosweep:extra", {})),
        data_size=data.get("file:size") if data else None,
        data_checksum=data.get("file:checksum") if data else None,
        columns=tuple(
            (column["name"], column["type"]) for column in properties.get("table:columns", ())
        ),
        data_crs=(data.get("proj:code") or data.get("proj:wkt2")) if data else None,
        predecessor=predecessor_of(item),
    )


def _properties(record: SceneRecord) -> dict[str, Any]:
    scene = record.scene
    source = {
        "href": public_href(scene.href),
        "item_id": scene.item_id,
        "collection": scene.collection,
        "asset": scene.asset,
        "updated": scene.updated,
        "checksum": scene.checksum,
        "version": scene.source_version,
        **_access(scene.access),
        "assets": _other_rasters(scene.assets) or None,
        # A list, since a snapshot in parquet keeps no order of keys.
        "bands": [{"name": name, **part} for name, part in _other_rasters(scene.bands).items()]
        or None,
    }
    properties: dict[str, Any] = {
        "created": format_time(record.created),
        "geosweep:status": record.status,
        "geosweep:version": record.version,
        "geosweep:fingerprint": record.fingerprint,
        "geosweep:counts": record.counts,
        "geosweep:timings": record.timings,
        "geosweep:rows": record.rows,
        "geosweep:source": {key: value for key, value in source.items() if value is not None},
        "geosweep:models": record.models,
        "processing:software": record.software,
    }
    if scene.datetime is None:
        properties["geosweep:datetime_unknown"] = True
    if record.error is not None:
        properties["geosweep:error"] = scrub(record.error)
    if scene.error is not None:
        properties["geosweep:source_error"] = scrub(scene.error)
    if record.bbox is not None:
        properties["geosweep:data_bbox"] = list(record.bbox)
    if record.extra:
        properties["geosweep:extra"] = record.extra
    if scene.crs is not None:
        properties |= crs_fields(scene.crs)
    if scene.transform is not None:
        properties["proj:transform"] = list(scene.transform)
    if scene.shape is not None:
        properties["proj:shape"] = list(scene.shape)
    return properties


def crs_fields(crs: str | None) -> dict[str, str | None]:
    """Return a CRS as the projection extension has it; a null code says that there is none."""
    coded = crs is None or (len(crs) < 64 and "[" not in crs)
    return {"proj:code" if coded else "proj:wkt2": crs}


def _describe_data(record: SceneRecord, item: pystac.Item, asset: pystac.Asset) -> None:
    """Say what is known of the data file: its bytes, its columns, its CRS."""
    from pystac.extensions.file import FileExtension
    from pystac.extensions.table import Column, TableExtension

    if record.data_size is not None:
        FileExtension.ext(asset, add_if_missing=True).apply(
            size=record.data_size, checksum=record.data_checksum
        )
    if record.columns:
        # On the item, whose rows they are: the file may hold those of other scenes as well.
        table = TableExtension.ext(item, add_if_missing=True)
        table.columns = [Column({"name": name, "type": kind}) for name, kind in record.columns]
        table.primary_geometry = GEOMETRY
        table.row_count = record.rows
        # The item's own projection is the raster's grid.
        asset.extra_fields |= crs_fields(record.data_crs)


def _other_rasters(others: Mapping[str, SideAsset]) -> dict[str, Any]:
    return {
        key: {
            name: value
            for name, value in (
                ("href", public_href(other.href)),
                ("updated", other.updated),
                ("checksum", other.checksum),
                *_access(other.access).items(),
            )
            if value is not None
        }
        for key, other in others.items()
    }


def _access(access: Access) -> dict[str, Any]:
    return {"region": access.region, "requester_pays": access.requester_pays or None}


def _links(scene: Scene) -> list[pystac.Link]:
    import pystac

    collection = f"../{COLLECTION}"
    media = pystac.MediaType.JSON
    return [
        pystac.Link("root", collection, media),
        pystac.Link("parent", collection, media),
        pystac.Link("collection", collection, media),
        pystac.Link("derived_from", public_href(scene.href)),
    ]


def _scene(item: dict[str, Any]) -> Scene:
    properties = item["properties"]
    source = properties["geosweep:source"]
    unknown = properties.get("geosweep:datetime_unknown", False)
    transform = properties.get("proj:transform")
    size = properties.get("proj:shape")
    return Scene(
        id=item["id"],
        href=source["href"],
        item_id=source["item_id"],
        collection=source.get("collection"),
        asset=source.get("asset"),
        datetime=None if unknown else parse_time(properties["datetime"]),
        updated=source.get("updated"),
        checksum=source.get("checksum"),
        footprint=_footprint(item.get("geometry")),
        crs=properties.get("proj:code") or properties.get("proj:wkt2"),
        transform=tuple(transform) if transform else None,  # type: ignore[arg-type]
        shape=(size[0], size[1]) if size else None,
        error=properties.get("geosweep:source_error"),
        assets=_rasters_from(source.get("assets")),
        bands=_rasters_from({part["name"]: part for part in source.get("bands") or ()}),
        access=_access_from(source),
    )


def _rasters_from(others: dict[str, Any] | None) -> dict[str, SideAsset]:
    # A snapshot in parquet has every key for every item, with nothing in it.
    return {
        key: SideAsset(
            parts["href"], parts.get("updated"), parts.get("checksum"), _access_from(parts)
        )
        for key, parts in (others or {}).items()
        if parts
    }


def _access_from(parts: dict[str, Any]) -> Access:
    return Access(parts.get("region"), bool(parts.get("requester_pays")))


def _footprint(geometry: dict[str, Any] | None) -> BaseGeometry | None:
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        return shape(geometry) if geometry else None
    except ShapelyError as error:
        raise ValueError(f"its geometry is none: {error}") from None


def _plain(geometry: dict[str, Any]) -> dict[str, Any]:
    """Turn shapely's tuples into the lists that JSON gives back, so that both compare equal."""

    def lists(value: Any) -> Any:
        return [lists(part) for part in value] if isinstance(value, list | tuple) else value

    return {key: lists(value) for key, value in geometry.items()}
