"""The collection and the snapshot of an output's items."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import OutputError
from .extent import Extent, one_of
from .geoparquet import write_items
from .hrefs import scrub
from .mlm import UsedModel, describe_models
from .records import COLLECTION, Records
from .stacitems import GEOMETRY, PARQUET, PROCESSING, PROJECTION
from .storage import MissingKeyError, Storage

if TYPE_CHECKING:
    import pystac

    from .spec import BBox

SNAPSHOT = "items.parquet"

_WORLD: BBox = (-180.0, -90.0, 180.0, 90.0)
_SECRET_KEYS = ("secret", "password", "passwd", "token", "api_key", "access_key", "credential")


def write_collection(
    storage: Storage,
    *,
    collection_id: str,
    description: str,
    fingerprint: str,
    job: Mapping[str, Any],
    columns: Sequence[tuple[str, str, str]],
    models: Mapping[str, str],
    used: Sequence[UsedModel] = (),
    software: Mapping[str, str] | None = None,
    lineage: str | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    bbox: BBox | None = None,
    interval: tuple[datetime | None, datetime | None] = (None, None),
    license: str = "other",
    replace: bool = True,
) -> bool:
    """Write ``collection.json``; equal arguments give equal bytes in an empty output.

    Without `bbox` and `interval`, the extent and the summaries of the collection that stands are
    kept: they are of its items, which stay. `write_snapshot` brings them up to date.

    Parameters
    ----------
    storage
        Of the output.
    collection_id, description, license
        As in STAC.
    fingerprint
        Of the job, kept under ``geosweep:fingerprint``.
    job
        The job as JSON-able values; kept, without secrets, under ``geosweep:job``.
    columns
        (name, type, description) of each column of the data files.
    models
        Versions by name.
    used
        The same models in full, the detector first.
    software
        Versions by name.
    lineage
        What was done to the rasters, in a sentence or two.
    labels
        Values that columns can have, by the column's name.
    bbox, interval
        Extent in EPSG:4326 and time; the whole world and open where not known.
    replace
        Whether an existing collection is replaced; otherwise the first of several writers wins.

    Returns
    -------
    bool
        False if another collection stands and was left alone.
    """
    import pystac
    from pystac.extensions.table import Column, TableExtension
    from pystac.extensions.version import VersionExtension

    extent = pystac.Extent(
        pystac.SpatialExtent([list(bbox or _WORLD)]), pystac.TemporalExtent([list(interval)])
    )
    collection = pystac.Collection(
        id=collection_id,
        description=description,
        license=license,
        extent=extent,
        stac_extensions=[PROJECTION, PROCESSING],
        providers=[_processor(software or {}, lineage)],
        summaries=pystac.Summaries({name: one_of(list(x)) for name, x in (labels or {}).items()}),
        extra_fields={
            "geosweep:fingerprint": fingerprint,
            "geosweep:models": dict(models),
            "geosweep:job": without_secrets(dict(job)),
        },
        assets={
            "items": pystac.Asset(
                f"./{SNAPSHOT}",
                "Snapshot of all items as stac-geoparquet",
                media_type=PARQUET,
                roles=["collection-mirror"],
            )
        },
    )
    collection.item_assets["data"] = pystac.ItemAssetDefinition.create(
        "Detections", None, PARQUET, ["data"]
    )
    VersionExtension.ext(collection, add_if_missing=True).version = fingerprint
    table = TableExtension.ext(collection, add_if_missing=True)
    table.columns = [
        Column({"name": name, "type": kind, "description": text}) for name, kind, text in columns
    ]
    table.primary_geometry = GEOMETRY
    describe_models(collection, used, framework_version=(software or {}).get("torch", ""))
    collection.links = [pystac.Link("root", f"./{COLLECTION}", pystac.MediaType.JSON)]
    document = collection.to_dict(include_self_link=False, transform_hrefs=False)
    if bbox is None and interval == (None, None):
        _keep_extent(document, read_collection(storage) or {})
    data = _encoded(document)
    if not replace:
        return storage.put_if_absent(COLLECTION, data)
    storage.put(COLLECTION, data)
    return True


def read_collection(storage: Storage) -> dict[str, Any] | None:
    """Return the output's collection, or None where there is none yet.

    Raises
    ------
    OutputError
        If there is a ``collection.json`` that is no STAC collection.
    """
    try:
        collection = json.loads(storage.get(COLLECTION))
    except MissingKeyError:
        return None
    except ValueError:
        collection = None
    if not isinstance(collection, dict) or collection.get("type") != "Collection":
        raise OutputError(
            f"{storage.uri(COLLECTION)} is not a STAC collection: name another output folder"
        )
    return collection


def write_snapshot(storage: Storage, look: Callable[[dict[str, Any]], None] | None = None) -> int:
    """Write ``items.parquet``, the stac-geoparquet of all items; returns how many.

    Items stand in the order of their keys, so that equal items give equal rows. The collection's
    extent and summaries become those of the items.

    Parameters
    ----------
    look
        Called with each item that passes by, for those who want all of them, too: on an object store
        reading them takes longer than all else here.
    """
    extent = Extent()

    def passing() -> Iterator[dict[str, Any]]:
        for item in Records(storage).items():
            if look is not None:
                look(item)
            yield item

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SNAPSHOT
        count = write_items(extent.watch(passing()), path)
        storage.put_file(SNAPSHOT, path)
    collection = read_collection(storage)
    if collection is not None:
        before = _encoded(collection)
        extent.describe(collection)
        if _encoded(collection) != before:
            storage.put(COLLECTION, _encoded(collection))
    return count


def _processor(software: Mapping[str, str], lineage: str | None) -> pystac.Provider:
    """Who did it, which the processing extension demands of a collection."""
    import pystac

    fields: dict[str, Any] = {"processing:software": dict(software)}
    if lineage is not None:
        fields["processing:lineage"] = lineage
    roles = [pystac.ProviderRole.PROCESSOR]
    return pystac.Provider("geosweep", roles=roles, extra_fields=fields)


def _keep_extent(document: dict[str, Any], standing: dict[str, Any]) -> None:
    """Take over what `write_snapshot` found out about the items."""
    if "extent" in standing:
        document["extent"] = standing["extent"]
    codes = standing.get("summaries", {}).get("proj:code")
    if codes is not None:
        document.setdefault("summaries", {})["proj:code"] = codes


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False).encode()


def without_secrets(value: Any) -> Any:
    """Return a JSON-like value with secrets taken out of its strings and secret-named keys."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {
            key: "***" if _secret(str(key)) and part is not None else without_secrets(part)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(part) for part in value]
    return value


def _secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRET_KEYS)
