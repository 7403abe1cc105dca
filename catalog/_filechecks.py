"""The data files of an output against the items that point to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._datafile import FileCheck, check_file
from ._scratch import Scratch
from .errors import OutputError
from .records import item_key, own_file
from .sharedfiles import is_shared_file
from .stacitems import from_item
from .storage import MissingKeyError
from .versions import kept_data, kept_items

if TYPE_CHECKING:
    from ._repeats import Repeats
    from .records import SceneRecord
    from .storage import Storage

Note = Callable[[str, str, str | None], None]


class FileChecks:
    """Checks each data file once, whether it is one scene's or is shared by several.

    Parameters
    ----------
    storage
        Of the output.
    listed
        (name, type) of the columns that the collection lists.
    ids
        Where the hashes of detection ids are gathered.
    note
        Takes the check's name, what was looked at, and what is wrong with it or None.

    Attributes
    ----------
    repeated
        Rows that repeat a detection_id of their own file.
    dead
        Rows in shared files of scenes that were replaced since.
    unused
        Shared files that no scene is in any more.
    """

    def __init__(
        self, storage: Storage, listed: list[tuple[str, str]], ids: Repeats, note: Note
    ) -> None:
        self._storage = storage
        self._listed = listed
        self._ids = ids
        self._note = note
        self._shared = Scratch(
            "CREATE TABLE shared (data TEXT, item TEXT)", "CREATE INDEX of_file ON shared (data)"
        )
        self._known: set[str] = set()
        self.repeated = 0
        self.dead = 0
        self.unused = 0

    def add(self, record: SceneRecord, item: dict[str, Any]) -> None:
        """Check a scene's own file now; a shared one later, in `finish`."""
        assert record.data is not None
        self._known.add(record.data)
        if own_file(record):
            self._check(record.data, [record], shared=False)
        else:
            text = json.dumps(item)
            self._shared.execute("INSERT INTO shared VALUES (?, ?)", (record.data, text))

    def finish(self) -> None:
        """Check the shared files, and that there are no others."""
        kept: dict[str, int] = {}  # rows of earlier versions that are kept
        for _, item in kept_items(self._storage):
            data = kept_data(item)
            if data is not None:
                rows = item["properties"].get("geosweep:rows", 0)
                kept[data] = kept.get(data, 0) + rows
        for (key,) in self._shared.execute("SELECT DISTINCT data FROM shared").fetchall():
            items = self._shared.execute("SELECT item FROM shared WHERE data = ?", (key,))
            records = [from_item(json.loads(text)) for (text,) in items]
            self._check(key, records, shared=True, elsewhere=kept.get(key, 0))
        self._shared.close()
        for key in self._storage.list("data", ".parquet"):
            if key in self._known or key in kept:
                continue
            if is_shared_file(key):
                self.unused += 1
            else:
                self._note("files", key, "no item points to it, so no reader counts it")

    def _check(
        self, key: str, records: list[SceneRecord], *, shared: bool, elsewhere: int = 0
    ) -> None:
        digest = any(record.data_checksum is not None for record in records)
        try:
            found = check_file(self._storage, key, records, self._listed, digest=digest)
        except (OSError, ValueError, OutputError) as error:
            missing = isinstance(error, FileNotFoundError | MissingKeyError)
            reason = "is missing" if missing else "can't be read as parquet"
            for record in records:
                what = item_key(record.scene.id)
                self._note("files", what, f"its data file {key} {reason}")
            return
        self._ids.add(found.ids)
        self._note("geoparquet", key, found.geoparquet)
        self._note("columns", key, found.columns)
        repeats = f"{found.repeated} rows repeat a detection_id" if found.repeated else None
        self._note("ids", key, repeats)
        self.repeated += found.repeated
        for record in records:
            self._agrees(key, record, found)
        counted = sum(found.counts.values())
        others = found.total - counted - elsewhere
        if shared:
            self.dead += max(others, 0)
        elif others:
            fault = f"of its {found.total} rows items account for {counted}"
            self._note("files", key, fault)

    def _agrees(self, key: str, record: SceneRecord, found: FileCheck) -> None:
        what = item_key(record.scene.id)
        self._note("files", what, None)
        if record.data_checksum is not None:
            other = found.checksum != record.data_checksum
            fault = f"its SHA-256 is not the file:checksum of {what}" if other else None
            self._note("checksums", key, fault)
        self._note("place", key, found.places.get(record.scene.id))
        count = found.counts.get(record.scene.id, 0)
        fault = None
        if count != record.rows:
            fault = f"it has {count} rows of the scene, {what} says {record.rows}"
        elif record.counts.get("detections", record.rows) != record.rows:
            fault = f"{what} counts {record.counts['detections']} detections in {record.rows} rows"
        elif record.data_size not in (None, found.size):
            fault = f"it has {found.size} bytes, {what} says {record.data_size}"
        self._note("counts", key, fault)
