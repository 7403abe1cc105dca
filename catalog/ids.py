"""Scene ids: unique, and safe as file names and object keys."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Self

from ._repeats import RepeatedHashes

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 120  # leaves room for "-<version>.parquet" within the 255 bytes of a file name


def safe_id(name: str) -> str:
    """Return `name` with every run of characters that a file name may not hold made one ``_``."""
    safe = _UNSAFE.sub("_", name).lstrip(".-")
    if len(safe) > _LONGEST:
        safe = f"{safe[: _LONGEST - 9]}-{short_hash(name)}"
    return safe or "scene"


def short_hash(text: str) -> str:
    """Return 8 hex digits that stand for `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class SceneIds:
    """Gives each entry of a source an id of its own; memory does not grow with their number.

    Entries whose safe names are equal (letter case aside, for file systems that ignore it) all get
    a suffix, so that an entry's id does not depend on the order in which the source lists them.

    Parameters
    ----------
    names
        The names of all entries of the source, one for each distinct entry.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._shared = RepeatedHashes(name_hash(name) for name in names)

    @classmethod
    def of_hashes(cls, hashes: Iterable[int]) -> Self:
        """Make it of the `name_hash` of every name."""
        ids = cls.__new__(cls)
        ids._shared = RepeatedHashes(hashes)
        return ids

    def __call__(self, name: str, identity: str) -> str:
        """Return the id of the entry `name`; `identity` tells it apart from its namesakes."""
        if self._shared and name_hash(name) in self._shared:
            return f"{safe_id(name)}-{short_hash(identity)}"
        return safe_id(name)


def name_hash(name: str) -> int:
    """Return a hash, good in this process only, that names with one safe id share, letter case aside."""
    return hash(safe_id(name).casefold())
