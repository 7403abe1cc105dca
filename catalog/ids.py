"""Scene ids: unique, and safe as file names and object keys."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

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
    """Gives each entry of a source an id of its own.

    Entries whose safe names are equal (letter case aside, for file systems that ignore it) all get
    a suffix, so that an entry's id does not depend on the order in which the source lists them.

    Parameters
    ----------
    names
        The names of all entries of the source, one for each distinct entry.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._counts = Counter(safe_id(name).casefold() for name in names)

    def __call__(self, name: str, identity: str) -> str:
        """Return the id of the entry `name`; `identity` tells it apart from its namesakes."""
        safe = safe_id(name)
        if self._counts[safe.casefold()] > 1:
            return f"{safe}-{short_hash(identity)}"
        return safe
