"""Where results are kept: a folder, or a prefix of an object store.

Both kinds promise the same two things, which the once-only guarantee of a run rests on: a key's
content appears whole or not at all, and of several `put_if_absent` at once exactly one wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from .errors import OutputError


class MissingKeyError(OutputError, KeyError):
    """There is nothing under this key."""

    __str__ = Exception.__str__


@runtime_checkable
class Storage(Protocol):
    """A flat space of keys (``items/a.json``) with bytes under them; picklable.

    All methods raise `OutputError` for a mistake (an unwritable folder, a bad key) and its child
    `StorageError` when the storage can't be reached.
    """

    def uri(self, key: str = "") -> str:
        """Return the full path or URL of `key`, or of the storage itself."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Return where `key` lies on this machine's disk; None in an object store."""
        ...

    def get(self, key: str) -> bytes:
        """Return the content of `key`; raises `MissingKeyError` where there is none."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Open the content of `key` to read parts of it; raises as `get` does.

        Of an object store each `read` is one request, for just those bytes.
        """
        ...

    def get_file(self, key: str, path: Path) -> None:
        """Copy the content of `key` to the local file `path`; raises as `get` does."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is something under `key`."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store `data`, replacing what was there; readers see the old or the new, never a part."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Store `data` unless the key exists; returns whether this call stored it."""
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Store a copy of the local file `path`, replacing what was there."""
        ...

    def list(self, prefix: str = "", suffix: str = "", *, sort: bool = True) -> Iterator[str]:
        """Yield the keys below the folder `prefix` that end in `suffix`; sorted within a folder.

        Without `sort` in any order, and then a folder's names are never in memory all at once.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens if it isn't there."""
        ...

    def check_writable(self) -> None:
        """Make the folder if need be, and raise unless something can be stored."""
        ...

    def sweep_temporary(self) -> int:
        """Remove what killed writers left more than an hour ago; returns how many files."""
        ...


def open_storage(path: str | Path) -> Storage:
    """Open a folder (made on the first write) or an ``s3://``, ``gs://``, ``az://`` URL.

    ``memory://name`` is an object store that lives and dies with this process, for tests.

    Raises
    ------
    OutputError
        If a file stands where the folder should be, or the scheme is not known.
    """
    text = str(path)
    if "://" in text and not text.startswith("file://"):
        from .objectstore import ObjectStorage

        return ObjectStorage(text)
    from .localstorage import LocalStorage

    return LocalStorage(text.removeprefix("file://"))


def check_key(key: str) -> str:
    """Return `key`, or raise OutputError unless it is a plain relative path."""
    if not key or key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise OutputError(f"'{key}' is not a valid key: write a relative path such as items/a.json")
    return key
