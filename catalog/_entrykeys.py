"""What must be known of all entries of a source before the first of them is given out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from ._repeats import RepeatedHashes
from ._scratch import Scratch
from .ids import SceneIds, name_hash

Key = tuple[str | None, str]


class EntryKeys:
    """How many entries there are, which ids they get, and which of them come twice.

    Parameters
    ----------
    keys
        (collection, id) of every entry, repeated ones included.

    Attributes
    ----------
    count
        Distinct entries.
    ids
        Gives each an id of its own.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        with closing(Scratch("CREATE TABLE entries (key INTEGER, name INTEGER)")) as entries:
            entries.fill(
                "INSERT INTO entries VALUES (?, ?)",
                ((hash(key), name_hash(key[1])) for key in keys),
            )
            self._repeated = RepeatedHashes(
                row[0] for row in entries.execute("SELECT key FROM entries")
            )
            once = "DISTINCT " if self._repeated else ""
            self.count: int = entries.first(f"SELECT count({once}key) FROM entries")[0]
            names = entries.execute(f"SELECT {once}key, name FROM entries")
            self.ids = SceneIds.of_hashes(row[1] for row in names)

    def seen(self) -> Seen:
        """Return a memory for one pass over these entries."""
        return Seen(self._repeated)


class Seen:
    """Tells whether a key came before, in one pass over entries.

    Parameters
    ----------
    repeated
        Hashes among which those of all keys are that come twice; None if that isn't known.
    """

    def __init__(self, repeated: RepeatedHashes | None = None) -> None:
        self._repeated = repeated
        # The hash is only for finding: keys are compared in full.
        self._keys = Scratch("CREATE TABLE keys (collection TEXT, id TEXT)")
        self._keys.execute(
            "CREATE UNIQUE INDEX of_key ON keys (id, coalesce(collection, char(31)))"
        )

    def again(self, key: Key) -> bool:
        """Whether this key was asked for before."""
        if self._repeated is not None and hash(key) not in self._repeated:
            return False
        found = self._keys.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", key)
        return found.rowcount == 0
