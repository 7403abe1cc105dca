"""Bookkeeping for compaction: which small data files are merged, and items that move to new ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ._hilbert import hilbert_distances
from ._scratch import Scratch
from .records import Records, is_own_file, item_key, record_errors
from .sharedfiles import Member, is_shared_file, member_of_item, shared_file
from .stacitems import FILE
from .versions import kept_data, kept_items

if TYPE_CHECKING:
    from .storage import Storage

MADE_FOR = b"geosweep:target_size"
"""Key of the target size in a shared file's parquet metadata."""

_MOST_SCENES = 16_384
_BATCH = 4096

_MEMBER = """CREATE TABLE member (
    scene_id TEXT PRIMARY KEY, version TEXT, rows INTEGER, data TEXT, own INTEGER,
    fingerprint TEXT, size INTEGER, x REAL, y REAL
) WITHOUT ROWID"""
_FILE = """CREATE TABLE file (
    key TEXT PRIMARY KEY, folder TEXT, fingerprint TEXT, scenes INTEGER, rows INTEGER, size INTEGER,
    own INTEGER, x REAL, y REAL, dead INTEGER DEFAULT 0, fresh INTEGER DEFAULT 0, loose INTEGER DEFAULT 0
) WITHOUT ROWID"""
_PLACE = "CREATE TABLE place (key TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID"
_TO_MERGE = """WHERE loose GROUP BY folder, fingerprint
    HAVING max(dead) > 0 OR (count(*) > 1 AND max(fresh))"""
_PINNED = "CREATE TABLE pinned (data TEXT, rows INTEGER)"


class Footer(NamedTuple):
    """What a shared file's footer says: rows in all, and the target size it was made for."""

    rows: int
    made_for: int


@dataclass(frozen=True, slots=True)
class Group:
    """Files that become one.

    Parameters
    ----------
    folder
        Where they lie: ``data``, or a partition's folder in it.
    files
        Their keys, by place.
    members
        The scenes whose rows in them count, by id.
    """

    folder: str
    files: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def key(self) -> str:
        """Of the new file."""
        return shared_file(self.folder, self.members)

    @property
    def rows(self) -> int:
        """Rows of all members."""
        return sum(member.rows for member in self.members)


class Shelf:
    """The data files of an output as its items have them, on disk: memory doesn't grow with them.

    A file is *loose* if it may be merged: it is smaller than half of the target, or holds dead rows.
    It is *fresh* if it was not made by compaction for this target, or holds dead rows. A folder's loose
    files are merged if one of them is fresh, so that a second compaction finds nothing to do.

    Parameters
    ----------
    storage
        Of the output.
    target
        Bytes that a merged file should have.
    footer
        Reads a shared file's footer.
    """

    def __init__(self, storage: Storage, target: int, footer: Callable[[str], Footer]) -> None:
        self._storage = storage
        self._records = Records(storage)
        self._target = target
        self._table = Scratch(_MEMBER, _FILE, _PLACE, _PINNED)
        marks = ",".join("?" * 9)
        self._table.fill(f"INSERT INTO member VALUES ({marks})", _described(storage))
        self._table.execute("CREATE INDEX of_file ON member (data)")
        self._table.fill("INSERT INTO pinned VALUES (?, ?)", _old_versions(storage))
        self._gather(footer)
        rows, size = self._table.first("SELECT total(rows), total(size) FROM file WHERE loose")
        self.bytes_per_row = size / rows if rows and size else 150.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    @property
    def files(self) -> int:
        """How many data files the items point to."""
        return self._table.first("SELECT count(DISTINCT data) FROM member")[0]

    @property
    def to_merge(self) -> int:
        """How many files become fewer, about."""
        return self._table.first(
            f"SELECT total(files) FROM (SELECT count(*) AS files FROM file {_TO_MERGE})"
        )[0]

    def sums(self, group: Group) -> tuple[int, int]:
        """Bytes of a group's files, and rows in them that don't count."""
        found = [
            self._table.first("SELECT size, dead FROM file WHERE key = ?", (key,))
            for key in group.files
        ]
        return sum(size for size, _ in found), sum(dead for _, dead in found)

    def groups(self) -> Iterator[Group]:
        """Yield which files become one: neighbours along a Hilbert curve, about the target's size.

        `bytes_per_row` is looked at all the time: set it to what a merged file has.
        """
        folders = self._table.execute(
            f"SELECT folder, fingerprint FROM file {_TO_MERGE}"
        ).fetchall()
        for folder, fingerprint in folders:
            self._order(folder, fingerprint)
            found = self._table.execute(
                "SELECT key, scenes, rows, fresh FROM file LEFT JOIN place USING (key) WHERE loose "
                "AND folder = ? AND fingerprint = ? ORDER BY place IS NULL, place, key",
                (folder, fingerprint),
            )
            for files in self._cut(found):
                if len(files) > 1 or files[0][3]:
                    yield self._group(folder, tuple(file[0] for file in files))

    def move(self, member: Member, key: str, size: int, checksum: str) -> bool:
        """Let a scene's item point to a new file, if it still is what was merged; else False."""
        item = self._records.read_item(member.scene_id)
        if item is None:
            return False
        with record_errors(self._storage, member.scene_id):
            if member_of_item(item) != member:
                return False
        asset = item["assets"]["data"]
        asset["href"] = f"../{key}"
        asset["file:size"] = size
        asset["file:checksum"] = checksum
        if FILE not in item.setdefault("stac_extensions", []):
            item["stac_extensions"].append(FILE)
        text = json.dumps(item, indent=1, allow_nan=False, ensure_ascii=False)
        self._storage.put(item_key(member.scene_id), text.encode())
        return True

    def moved(self, members: list[Member], key: str) -> None:
        """Take note of the scenes that `move` moved."""
        self._table.fill(
            "UPDATE member SET data = ? WHERE scene_id = ?", ((key, m.scene_id) for m in members)
        )

    def leftovers(self, *, somebody_writes: Callable[[], bool]) -> Iterator[tuple[str, bool]]:
        """Yield files that no item points to, and whether they may go.

        What runs write just now must stay: they put the file first, and the item after it.
        """
        busy: bool | None = None
        for key in self._storage.list("data", ".parquet"):
            if self._table.first(
                "SELECT 1 FROM member WHERE data = ?1 UNION SELECT 1 FROM pinned WHERE data = ?1",
                (key,),
            ):
                continue
            if is_shared_file(key) or self._superseded(key):
                yield key, True
                continue
            item = self._records.read_item(_scene_and_version(key)[0])
            now = None if item is None else member_of_item(item)
            if now is not None and now.data == key:  # put by a run since we looked
                continue
            if busy is None:
                busy = somebody_writes()
            yield key, not busy

    def _superseded(self, key: str) -> bool:
        """Whether the very rows of a scene's own file lie in a shared one."""
        scene_id, version = _scene_and_version(key)
        found = self._table.first("SELECT version FROM member WHERE scene_id = ?", (scene_id,))
        return found is not None and found[0] == version

    def _gather(self, footer: Callable[[str], Footer]) -> None:
        self._table.execute(
            "INSERT INTO file (key, folder, fingerprint, scenes, rows, size, own, x, y) "
            "SELECT data, rtrim(rtrim(data, replace(data, '/', '')), '/'), max(fingerprint), count(*), "
            "sum(rows), max(size), max(own), avg(x), avg(y) FROM member GROUP BY data"
        )
        self._table.execute(
            "UPDATE file SET fresh = 1, loose = 1 WHERE own AND size < ?", (self._target / 2,)
        )
        for key, rows, size in self._table.execute(
            "SELECT key, rows, size FROM file WHERE NOT own"
        ).fetchall():
            found = footer(key)
            pinned = self._table.first("SELECT total(rows) FROM pinned WHERE data = ?", (key,))[0]
            dead = found.rows - rows - int(pinned)
            small = (size or 0) < self._target / 2
            fresh = dead > 0 or (small and found.made_for != self._target)
            self._table.execute(
                "UPDATE file SET dead = ?, fresh = ?, loose = ? WHERE key = ?",
                (max(dead, 0), fresh, small or dead > 0, key),
            )

    def _order(self, folder: str, fingerprint: str) -> None:
        """Find each loose file's place along a curve around all of them."""
        import numpy as np

        which = "FROM file WHERE loose AND folder = ? AND fingerprint = ? AND x IS NOT NULL"
        values = (folder, fingerprint)
        bounds = self._table.first(f"SELECT min(x), min(y), max(x), max(y) {which}", values)
        found = self._table.execute(f"SELECT key, x, y {which}", values)
        while batch := found.fetchmany(_BATCH):
            points = np.array([row[1:] for row in batch], float)
            places = hilbert_distances(points, bounds).tolist()
            keys = [row[0] for row in batch]
            self._table.fill(
                "INSERT OR REPLACE INTO place VALUES (?, ?)", zip(keys, places, strict=True)
            )

    def _cut(self, found: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
        files: list[tuple[Any, ...]] = []
        weight, scenes = 0.0, 0
        for file in found:
            more = file[2] * self.bytes_per_row
            if files and (weight + more > 1.5 * self._target or scenes + file[1] > _MOST_SCENES):
                yield files
                files, weight, scenes = [], 0.0, 0
            files.append(file)
            weight, scenes = weight + more, scenes + file[1]
            if weight >= self._target:
                yield files
                files, weight, scenes = [], 0.0, 0
        if files:
            yield files

    def _group(self, folder: str, files: tuple[str, ...]) -> Group:
        found: list[Member] = []
        for key in files:
            rows = self._table.execute(
                "SELECT scene_id, version, rows, data FROM member WHERE data = ?", (key,)
            )
            found += (Member(*row) for row in rows)
        return Group(folder, files, tuple(sorted(found)))


def _scene_and_version(key: str) -> tuple[str, str]:
    scene_id, _, version = key.rpartition("/")[2].removesuffix(".parquet").rpartition("-")
    return scene_id, version


def _described(storage: Storage) -> Iterator[tuple[Any, ...]]:
    """A row for each record with a data file."""
    for item in Records(storage).items(sort=False):
        with record_errors(storage, str(item.get("id"))):
            member = member_of_item(item)
            if member is None:
                continue
            size = item["assets"]["data"].get("file:size") or 150 * member.rows
            fingerprint = item["properties"]["geosweep:fingerprint"]
            box = item.get("bbox")
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) if box else (None, None)
        own = is_own_file(member.data, member.scene_id, member.version)
        yield (*member, own, fingerprint, size, *middle)


def _old_versions(storage: Storage) -> Iterator[tuple[str, int]]:
    """File and rows of each earlier version of a scene that is kept."""
    for _, item in kept_items(storage):
        data = kept_data(item)
        if data is not None:
            yield data, int(item["properties"]["geosweep:rows"])
