"""The collection and the snapshot of an output's items."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import OutputError
from .geoparquet import write_items
from .hrefs import scrub
from .records import COLLECTION, Records
from .stacitems import PARQUET, PROCESSING, PROJECTION
from .storage import MissingKeyError, Storage

if TYPE_CHECKING:
    from .spec import BBox

SNAPSHOT = "items.parquet"

_TABLE = "https://stac-extensions.github.io/table/v1.2.0/schema.json"
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
    bbox: BBox | None = None,
    interval: tuple[datetime | None, datetime | None] = (None, None),
    license: str = "other",
    replace: bool = True,
) -> bool:
    """Write ``collection.json``; equal arguments give equal bytes.

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

    table = [{"name": name, "type": kind, "description": text} for name, kind, text in columns]
    collection = pystac.Collection(
        id=collection_id,
        description=description,
        license=license,
        extent=pystac.Extent(
            pystac.SpatialExtent([list(bbox or _WORLD)]),
            pystac.TemporalExtent([list(interval)]),
        ),
        stac_extensions=[_TABLE, PROJECTION, PROCESSING],
        # The processing extension demands somebody who did it.
        providers=[
            pystac.Provider(
                "geosweep",
                roles=[pystac.ProviderRole.PROCESSOR],
                extra_fields={"processing:software": dict(models)},
            )
        ],
        extra_fields={
            "table:columns": table,
            "item_assets": {
                "data": {"title": "Detections", "type": PARQUET, "roles": ["data"]},
            },
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
    collection.links = [pystac.Link("root", f"./{COLLECTION}", pystac.MediaType.JSON)]
    document = collection.to_dict(include_self_link=False, transform_hrefs=False)
    data = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False).encode()
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


def write_snapshot(storage: Storage) -> int:
    """Write ``items.parquet``, the stac-geoparquet of all items; returns how many.

    Items stand in the order of their keys, so that equal items give equal rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SNAPSHOT
        count = write_items(Records(storage).items(), path)
        storage.put_file(SNAPSHOT, path)
    return count


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
