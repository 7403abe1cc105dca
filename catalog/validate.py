"""Whether an output is what it promises to be."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from ._filechecks import FileChecks
from ._repeats import Repeats
from ._stacschemas import StacSchemas
from .collection import SNAPSHOT
from .records import COLLECTION, ITEMS, SceneRecord, item_key
from .stacitems import from_item
from .storage import MissingKeyError, Storage
from .versions import kept_data, kept_items

_MOST_PROBLEMS = 1000
_SUMMED = ("windows", "windows_processed", "windows_failed", "detections", "duplicates_removed")
_STATES = ("succeeded", "empty", "failed")

_NAMES = {
    "collection": "collection.json is valid STAC",
    "items": "items are valid STAC",
    "commits": "items agree with themselves and the collection",
    "snapshot": "items.parquet has the same items, and valid ones",
    "files": "data files and items belong together",
    "checksums": "data files are as they were committed, to the byte",
    "geoparquet": "data files are GeoParquet 1.1",
    "columns": "their columns are those that are promised",
    "counts": "counts are those of the rows",
    "place": "rows lie in their scene's footprint",
    "ids": "every detection_id is there once",
    "sums": "sums are those of run.json",
    "versions": "older versions are valid STAC, and have their data files",
}


@dataclass(slots=True)
class OutputCheck:
    """What `validate_output` found.

    Attributes
    ----------
    checked, faults
        How many things each check looked at and found wrong, by the check's sentence.
    problems
        One sentence each; the first 1000.
    notes
        What was not checked, and why.
    """

    checked: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not sum(self.faults.values())


def validate_output(
    storage: Storage, collection: dict[str, Any], *, fetch_schemas: bool = True
) -> OutputCheck:
    """Check an output: STAC documents, data files, and that they agree.

    One file is in memory at a time, and some hundred bytes for each scene.

    Parameters
    ----------
    storage
        Of the output.
    collection
        From `read_collection`.
    fetch_schemas
        Whether the schemas of STAC extensions are fetched from where they are published; what can't
        be had is noted. The schemas of STAC itself come with pystac.
    """
    return _Validation(storage, collection, fetch=fetch_schemas).run()


class _Validation:
    def __init__(self, storage: Storage, collection: dict[str, Any], *, fetch: bool) -> None:
        self._storage = storage
        self._collection = collection
        self._schemas = StacSchemas(fetch=fetch)
        self._check = OutputCheck(
            dict.fromkeys(_NAMES.values(), 0), dict.fromkeys(_NAMES.values(), 0)
        )
        self._sums: Counter[str] = Counter()
        self._versions: dict[str, tuple[Any, ...]] = {}  # by the items' ids
        self._listed = [
            (str(column.get("name")), str(column.get("type")))
            for column in collection.get("table:columns", [])
        ]

    def run(self) -> OutputCheck:
        self._note("collection", COLLECTION, self._schemas.problem(self._collection))
        with tempfile.TemporaryDirectory(prefix="geosweep-") as folder:
            ids = Repeats(Path(folder))
            files = FileChecks(self._storage, self._listed, ids, self._note)
            for key in self._storage.list(ITEMS, ".json"):
                self._item(key, files)
            files.finish()
            repeated = ids.count() - files.repeated
        fault = f"{repeated} rows repeat a detection_id of another file" if repeated else None
        self._note("ids", "data/", fault)
        if files.dead:
            self._check.notes.append(
                f"{files.dead:,} rows are of scenes that were replaced since; readers pass over them, "
                "and geosweep catalog compact drops them"
            )
        self._older()
        if files.unused:
            self._check.notes.append(
                f"{files.unused:,} files of data/ were shared by scenes that are elsewhere now; geosweep "
                "catalog compact removes them"
            )
        self._snapshot()
        self._run_report()
        if self._schemas.skipped:
            names = ", ".join(sorted(self._schemas.skipped))
            self._check.notes.append(f"not held to schemas that are not at hand: {names}")
        return self._check

    def _note(self, name: str, what: str, fault: str | None) -> None:
        """Count a check of `what`, and its fault if it has one."""
        check, title = self._check, _NAMES[name]
        check.checked[title] += 1
        if fault is not None:
            check.faults[title] += 1
            if len(check.problems) < _MOST_PROBLEMS:
                check.problems.append(f"{what}: {fault}")

    def _item(self, key: str, files: FileChecks) -> None:
        try:
            item = json.loads(self._storage.get(key))
        except MissingKeyError:
            return  # withdrawn since it was listed
        except ValueError:
            item = None
        if not isinstance(item, dict):
            self._note("items", key, "it is no JSON object")
            return
        self._versions[key.removeprefix(ITEMS).removesuffix(".json")] = _version(item)
        self._note("items", key, self._schemas.problem(item))
        try:
            record = from_item(item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._note("commits", key, f"it is no commit record ({type(error).__name__}: {error})")
            return
        self._note("commits", key, self._commit_fault(key, item, record))
        self._sums["scenes"] += 1
        self._sums[record.status] += 1
        for name in _SUMMED:
            self._sums[name] += record.counts.get(name, 0)
        if record.data is not None:
            files.add(record, item)

    def _commit_fault(self, key: str, item: dict[str, Any], record: SceneRecord) -> str | None:
        counts = record.counts
        windows = sum(
            count
            for name, count in counts.items()
            if name in ("windows_processed", "windows_failed") or name.startswith("windows_skipped")
        )
        if item_key(record.scene.id) != key:
            return f"its id is {record.scene.id}"
        if item.get("collection") != self._collection.get("id"):
            return f"it names the collection {item.get('collection')}"
        if record.fingerprint != self._collection.get("geosweep:fingerprint"):
            return "its fingerprint is another job's than the collection's"
        if record.status not in _STATES:
            return f"its status is {record.status}"
        if (record.rows > 0) != (record.status == "succeeded"):
            return f"it is {record.status} with {record.rows} rows"
        if record.status == "failed" and not record.error:
            return "it failed without a reason"
        if record.status != "failed" and counts.get("windows", windows) != windows:
            return f"it has {counts['windows']} windows, and {windows} that came to an end"
        said = item["properties"].get("table:row_count", record.rows)
        if said != record.rows:
            return f"its table:row_count is {said}, its geosweep:rows {record.rows}"
        if record.columns and list(record.columns) != self._listed:
            return "its table:columns are not those of collection.json"
        return None

    def _older(self) -> None:
        for key, item in kept_items(self._storage):
            fault, data = self._schemas.problem(item), kept_data(item)
            if fault is None and data is not None and not self._storage.exists(data):
                fault = f"its data file {data} is missing"
            self._note("versions", key, fault)

    def _snapshot(self) -> None:
        from .geoparquet import read_items

        left = dict(self._versions)
        try:
            path = self._storage.local_path(SNAPSHOT)
            if path is None or not path.is_file():
                path = BytesIO(self._storage.get(SNAPSHOT))  # or say that there is none
            for item in read_items(path):
                name = str(item["id"])
                if name not in left:
                    fault = f"it has {name}, which is no item: run the job again"
                elif left.pop(name) != _version(item):
                    fault = f"its {name} is of another version than the item: run the job again"
                else:
                    problem = self._schemas.problem(item)
                    fault = None if problem is None else f"its {name} is not valid: {problem}"
                self._note("snapshot", SNAPSHOT, fault)
        except MissingKeyError:
            self._note("snapshot", SNAPSHOT, "it is missing: run the job to its end")
            return
        except (OSError, ValueError) as error:
            self._note("snapshot", SNAPSHOT, f"it can't be read as stac-geoparquet: {error}")
            return
        for name in left:
            self._note("snapshot", SNAPSHOT, f"it lacks {name}: run the job again")

    def _run_report(self) -> None:
        try:
            counts = json.loads(self._storage.get("run.json"))["counts"]
        except MissingKeyError:
            self._check.notes.append("there is no run.json to compare sums with")
            return
        except (ValueError, KeyError, TypeError):
            self._note("sums", "run.json", "it is no report of a run")
            return
        said, found = counts.get("scenes", 0), self._sums["scenes"]
        fault = f"of its {said} scenes {found} are there" if said > found else None
        self._note("sums", "run.json", fault)
        if said != found:
            self._check.notes.append(
                f"the last run was about {said} scenes, the items about {found}, so that sums are "
                "not compared"
            )
            return
        for name in (*_STATES, *_SUMMED):
            said, found = counts.get(name, 0), self._sums[name]
            fault = None if said == found else f"{name} is {said}, the items' sum is {found}"
            self._note("sums", "run.json", fault)


def _version(item: dict[str, Any]) -> tuple[Any, ...]:
    properties = item.get("properties")
    if not isinstance(properties, dict):
        return ()
    said = [properties.get(f"geosweep:{name}") for name in ("version", "status", "rows")]
    data = (item.get("assets") or {}).get("data") or {}
    return (*said, data.get("href"))
