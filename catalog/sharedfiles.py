"""Whose rows of which data file count: scenes' own files, and files that several scenes share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ._scratch import Scratch
from .records import Records, is_own_file, record_errors

if TYPE_CHECKING:
    from .records import SceneRecord
    from .storage import Storage

_SHARED = re.compile(r"part-[0-9a-f]{24}\.parquet")
"""No scene's own file can have such a name: its version has 16 digits."""

_TABLE = "CREATE TABLE member (data TEXT, scene_id TEXT, version TEXT, rows INTEGER)"


class Member(NamedTuple):
    """What a record says of its rows: so many of the file `data`, with its `scene_id`."""

    scene_id: str
    version: str
    rows: int
    data: str

    @property
    def alone(self) -> bool:
        """Whether the file is the scene's own."""
        return is_own_file(self.data, self.scene_id, self.version)


def is_shared_file(key: str) -> bool:
    """Whether compaction made the data file under this key."""
    return _SHARED.fullmatch(key.rpartition("/")[2]) is not None


def shared_file(folder: str, scenes: Iterable[Member]) -> str:
    """Key of the file for these scenes: the same ones in the same versions give the same name."""
    names = "\x1f".join(f"{member.scene_id}-{member.version}" for member in sorted(scenes))
    return f"{folder}/part-{hashlib.sha256(names.encode()).hexdigest()[:24]}.parquet"


class FileRows(NamedTuple):
    """A data file, and whose rows of it count.

    Parameters
    ----------
    key
        Of the file.
    members
        Scenes with rows in it. Other scenes' rows in it are dead: they were replaced since.
    shared
        Whether there may be other rows.
    """

    key: str
    members: list[Member]
    shared: bool

    @property
    def rows(self) -> int:
        """Rows that count."""
        return sum(member.rows for member in self.members)


class SharedFiles:
    """Members of files that several scenes share, gathered by file; on disk, however many."""

    def __init__(self) -> None:
        self._table = Scratch(_TABLE, "CREATE INDEX of_file ON member (data)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def add(self, member: Member) -> None:
        """Add a scene whose rows lie in a shared file."""
        values = (member.data, member.scene_id, member.version, member.rows)
        self._table.execute("INSERT INTO member VALUES (?, ?, ?, ?)", values)

    def pop(self) -> FileRows | None:
        """Take out the next file, in the order of keys; None if there is none left."""
        key = self._table.first("SELECT min(data) FROM member")[0]
        if key is None:
            return None
        found = self._table.execute(
            "SELECT scene_id, version, rows, data FROM member WHERE data = ? AND rows > 0 "
            "ORDER BY scene_id",
            (key,),
        )
        file = FileRows(key, [Member(*row) for row in found], shared=True)
        self._table.execute("DELETE FROM member WHERE data = ?", (key,))
        return file


def members(storage: Storage) -> Iterator[Member]:
    """Yield what each record with a data file says of its rows; only JSON is read, no geometry.

    Raises
    ------
    OutputError
        If a record can't be understood.
    """
    for item in Records(storage).items():
        with record_errors(storage, str(item.get("id"))):
            member = member_of_item(item)
        if member is not None:
            yield member


def member_of(record: SceneRecord | None) -> Member | None:
    """What a record says of its rows; None without a data file."""
    if record is None or record.data is None:
        return None
    return Member(record.scene.id, record.version, record.rows, record.data)


def member_of_item(item: dict[str, Any]) -> Member | None:
    """What a record says of its rows, given as the item that is stored; None without a data file.

    Raises
    ------
    KeyError, TypeError, AttributeError
        If the item is no record.
    """
    data = item.get("assets", {}).get("data")
    properties = item["properties"]
    return data and Member(
        item["id"],
        properties["geosweep:version"],
        properties["geosweep:rows"],
        data["href"].removeprefix("../"),
    )
