"""What an output's records say, in brief, for all scenes at once and with flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ._scratch import Scratch
from .records import Records, record_errors

if TYPE_CHECKING:
    from .storage import Storage

_TABLE = """CREATE TABLE standing (
    scene_id TEXT PRIMARY KEY, version TEXT, status TEXT, fingerprint TEXT, item_id TEXT,
    collection TEXT, asset TEXT, source_version TEXT, updated TEXT, rows INTEGER, data TEXT
) WITHOUT ROWID"""


class Standing(NamedTuple):
    """What must be known of a record to tell whether its scene is done, and from what.

    Parameters
    ----------
    scene_id, version, status, fingerprint, rows, data
        As in `SceneRecord`.
    item_id, collection, asset, updated
        As in `Scene`: what the source calls it, and the source's own `updated`, verbatim.
    source_version
        `Scene.source_version` when it was swept.
    """

    scene_id: str
    version: str
    status: str
    fingerprint: str
    item_id: str
    collection: str | None
    asset: str | None
    source_version: str
    updated: str | None
    rows: int
    data: str | None


class Ledger:
    """The standing of every recorded scene of an output, as of when it was read.

    A context manager. Rows lie in a temporary SQLite database, so that memory does not grow with
    their number.
    """

    def __init__(self) -> None:
        self._table = Scratch(_TABLE)

    @classmethod
    def read(cls, storage: Storage) -> Self:
        """Read all records of an output; only their JSON, no geometries.

        Raises
        ------
        OutputError
            If a record can't be understood.
        """
        ledger = cls()
        marks = ",".join("?" * len(Standing._fields))
        try:
            ledger._table.fill(f"INSERT INTO standing VALUES ({marks})", _standings(storage))
            ledger._table.execute("CREATE INDEX of_item ON standing (item_id, collection)")
        except BaseException:
            ledger.close()
            raise
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary database."""
        self._table.close()

    def __len__(self) -> int:
        return self._table.first("SELECT count(*) FROM standing")[0]

    def __iter__(self) -> Iterator[Standing]:
        for row in self._table.execute("SELECT * FROM standing ORDER BY scene_id"):
            yield Standing(*row)

    def get(self, scene_id: str) -> Standing | None:
        """Return a scene's standing, or None if it has no record."""
        row = self._table.first("SELECT * FROM standing WHERE scene_id = ?", (scene_id,))
        return None if row is None else Standing(*row)

    def of_item(self, collection: str | None, item_id: str) -> list[Standing]:
        """Return the standing of all scenes of a source item, by scene id; mostly one or none."""
        rows = self._table.execute(
            "SELECT * FROM standing WHERE item_id = ? AND collection IS ? ORDER BY scene_id",
            (item_id, collection),
        )
        return [Standing(*row) for row in rows]


def _standings(storage: Storage) -> Iterator[Standing]:
    for item in Records(storage).items(sort=False):
        with record_errors(storage, str(item.get("id"))):
            standing = _standing(item)
        yield standing


def _standing(item: dict[str, Any]) -> Standing:
    properties = item["properties"]
    source = properties["geosweep:source"]
    data = item.get("assets", {}).get("data")
    return Standing(
        scene_id=item["id"],
        version=properties["geosweep:version"],
        status=properties["geosweep:status"],
        fingerprint=properties["geosweep:fingerprint"],
        item_id=source["item_id"],
        collection=source.get("collection"),
        asset=source.get("asset"),
        source_version=source["version"],
        updated=source.get("updated"),
        rows=properties["geosweep:rows"],
        data=data["href"].removeprefix("../") if data else None,
    )
