"""Tables too long for memory: a temporary SQLite database that vanishes with its connection."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import StorageError

_CACHE_KIB = 4096


class Scratch:
    """A private database in the system's temporary folder (`TMPDIR`); nobody else sees it.

    What fits the cache of 4 MiB never touches the disk.

    Parameters
    ----------
    statements
        That make its tables.

    Raises
    ------
    StorageError
        Here and in every method, if SQLite fails; mostly because the temporary folder is full.
    """

    def __init__(self, *statements: str) -> None:
        # An empty name is SQLite's word for a temporary file. Nothing in it outlives the process, so
        # there is nothing to roll back to and nothing to sync.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.close = weakref.finalize(self, self._connection.close)
        """Remove the database; happens by itself when nobody holds it any more."""
        self.execute("PRAGMA journal_mode = OFF")
        self.execute("PRAGMA synchronous = OFF")
        self.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        for statement in statements:
            self.execute(statement)
        self.execute("BEGIN")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement; iterate what it returns for rows."""
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise _complaint(error) from error

    def fill(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of `rows`, taken one at a time."""
        try:
            self._connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise _complaint(error) from error

    def first(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Return the first row as a tuple, or None."""
        return self.execute(statement, values).fetchone()


def _complaint(error: sqlite3.Error) -> StorageError:
    return StorageError(
        f"The temporary database failed ({error}); make room in the temporary folder, or set TMPDIR "
        "to a larger one."
    )
