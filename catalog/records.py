"""Commit records: what became of a scene, kept as a STAC item."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from .errors import OutputError
from .scene import Scene
from .storage import MissingKeyError, Storage

if TYPE_CHECKING:
    from .spec import BBox

Status = Literal["succeeded", "empty", "failed"]

ITEMS = "items/"
VERSIONS = "versions/"
COLLECTION = "collection.json"
_THREADS = 32


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """The outcome of one scene.

    Parameters
    ----------
    scene
        The scene as planned.
    status
        ``empty`` scenes were swept and hold nothing; ``failed`` ones were not swept to the end.
    version
        Hash of the source's version and the job's fingerprint; part of the data file's name.
    fingerprint
        Of the job: settings and models that change the rows.
    counts, timings
        Windows, detections … by name; seconds by stage.
    data
        Key of the parquet file; None for a failed scene.
    rows
        Rows in that file.
    error
        Why it failed, without secrets.
    bbox
        West, south, east, north of the rows in EPSG:4326, where there are any.
    software, models
        Versions by name.
    created
        When the record was made; timezone-aware.
    extra
        Anything else worth keeping, as JSON.
    data_size, data_checksum
        Bytes of the parquet file and its SHA-256 as a multihash, where known.
    columns
        (name, type) of each of its columns, where known.
    data_crs
        CRS of its geometry; None for pixels.
    predecessor
        Version of the record before this one, where that was kept.
    """

    scene: Scene
    status: Status
    version: str
    fingerprint: str
    counts: dict[str, int]
    timings: dict[str, float]
    data: str | None
    rows: int
    created: datetime
    error: str | None = None
    bbox: BBox | None = None
    software: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    data_size: int | None = None
    data_checksum: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    data_crs: str | None = None
    predecessor: str | None = None

    def __post_init__(self) -> None:
        if self.created.tzinfo is None:
            raise ValueError(f"created={self.created} has no time zone")
        if (self.data is None) != (self.status == "failed"):
            raise ValueError(f"a {self.status} scene with data={self.data!r}")


class Records:
    """The commit records of an output, one item file for each scene.

    Parameters
    ----------
    storage
        Of the output.
    collection_id
        Which the items name; read from the output's ``collection.json`` where not given.
    """

    def __init__(self, storage: Storage, collection_id: str | None = None) -> None:
        self._storage = storage
        self._collection_id = collection_id
        self._asking = threading.Lock()

    def ids(self, *, sort: bool = True) -> Iterator[str]:
        """Yield the ids of all recorded scenes, sorted by key unless that is not asked for."""
        for key in self._storage.list(ITEMS, ".json", sort=sort):
            yield key.removeprefix(ITEMS).removesuffix(".json")

    def read(self, scene_id: str) -> SceneRecord | None:
        """Return a scene's record, or None; raises OutputError where it can't be understood."""
        item = self.read_item(scene_id)
        return None if item is None else self._parsed(scene_id, item)

    def read_item(self, scene_id: str) -> dict[str, Any] | None:
        """Return a scene's item as stored, or None."""
        key = item_key(scene_id)
        try:
            item = json.loads(self._storage.get(key))
        except MissingKeyError:
            return None
        except ValueError:
            item = None
        if not isinstance(item, dict):
            raise OutputError(
                f"{self._storage.uri(key)} is not a STAC item: remove it to have the scene redone"
            )
        return item

    def all(self) -> Iterator[SceneRecord]:
        """Yield every record, sorted by key, one at a time."""
        for item in self.items():
            yield self._parsed(str(item.get("id")), item)

    def items(self, *, sort: bool = True) -> Iterator[dict[str, Any]]:
        """Yield every item as stored, sorted by key unless that is not asked for.

        Few are in memory at a time; of an object store, many are on their way.
        """
        for item in self.fetch(self.ids(sort=sort)):
            if item is not None:  # removed since it was listed
                yield item

    def fetch(self, ids: Iterable[str]) -> Iterator[dict[str, Any] | None]:
        """Yield the item of each scene as stored, in the order of `ids`; None where there is none."""
        if self._storage.local_path(COLLECTION) is not None:
            yield from map(self.read_item, ids)  # parsing holds the GIL: threads would not help
            return
        with ThreadPoolExecutor(_THREADS, "geosweep-records") as pool:
            coming: deque[Future[dict[str, Any] | None]] = deque()
            try:
                for scene_id in ids:
                    coming.append(pool.submit(self.read_item, scene_id))
                    if len(coming) == 2 * _THREADS:
                        yield coming.popleft().result()
                while coming:
                    yield coming.popleft().result()
            finally:
                for future in coming:
                    future.cancel()

    def commit(self, record: SceneRecord, *, replace: bool) -> bool:
        """Store a record; from then on readers see the scene's rows.

        Parameters
        ----------
        record
            Its data file must be stored already.
        replace
            Whether it takes the place of an earlier record. Otherwise the first of several writers
            wins.

        Returns
        -------
        bool
            False if another record stands and was left alone.
        """
        from .stacitems import to_item

        item = to_item(record, collection_id=self._collection())
        data = json.dumps(item, indent=1, allow_nan=False, ensure_ascii=False).encode()
        key = item_key(record.scene.id)
        if replace:
            self._storage.put(key, data)
            return True
        return self._storage.put_if_absent(key, data)

    def _collection(self) -> str:
        with self._asking:  # of those that commit at the same time, one is enough
            if self._collection_id is None:
                from .collection import read_collection

                collection = read_collection(self._storage)
                if collection is None:
                    raise OutputError(
                        f"{self._storage.uri(COLLECTION)} does not exist: write the collection first"
                    )
                self._collection_id = str(collection["id"])
            return self._collection_id

    def _parsed(self, scene_id: str, item: dict[str, Any]) -> SceneRecord:
        from .stacitems import from_item

        with record_errors(self._storage, scene_id):
            return from_item(item)


@contextmanager
def record_errors(storage: Storage, scene_id: str) -> Iterator[None]:
    """Turn what is raised over an item that is no record into OutputError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(
            f"{storage.uri(item_key(scene_id))} is not a geosweep record "
            f"({type(error).__name__}: {error}): remove it to have the scene redone"
        ) from None


def own_file(record: SceneRecord) -> bool:
    """Whether a record's rows lie in a file of their own, named by scene and version.

    Otherwise they share one, and are those of its rows that have the record's `scene_id`; such a file
    is not to be removed when the scene goes.
    """
    return record.data is not None and is_own_file(record.data, record.scene.id, record.version)


def is_own_file(data: str, scene_id: str, version: str) -> bool:
    """Whether the data file under this key is that of one scene and version alone."""
    return data.rpartition("/")[2] == f"{scene_id}-{version}.parquet"


def item_key(scene_id: str) -> str:
    """Return the key of a scene's item."""
    return f"{ITEMS}{scene_id}.json"


def version_key(scene_id: str, version: str) -> str:
    """Return the key under which an older record of a scene is kept."""
    return f"{VERSIONS}{scene_id}/{version}.json"
