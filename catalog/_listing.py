"""Folders in object stores, listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._storefaults import fault
from .errors import OutputError, SourceError
from .hrefs import public_href

if TYPE_CHECKING:
    from .scene import Access

_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")


def is_listable(href: str) -> bool:
    """Whether `href` is a URL of an object store."""
    return href.partition("://")[0].lower() in _SCHEMES and "://" in href


def is_folder(href: str) -> bool:
    """Whether `href`, which `is_listable`, means a folder: a bucket, or a name with ``/`` behind."""
    rest = href.partition("://")[2]
    return "/" not in rest or rest.endswith("/")


def list_folder(
    folder: str, suffixes: tuple[str, ...], access: Access | None = None
) -> Iterator[tuple[str, str | None]]:
    """Yield (href, ETag) of the objects below a folder that end in one of `suffixes`, sorted.

    All the way down; what is hidden (a name or a folder with ``.`` before it) is skipped. `access` is how
    an S3 bucket wants to be asked.

    Raises
    ------
    SourceError
        If the folder can't be listed.
    """
    import obstore

    from .objectstore import connect

    folder = folder.rstrip("/") + "/"
    found: list[tuple[str, str | None]] = []
    try:
        for chunk in obstore.list(connect(folder, reading=True, access=access)):
            for entry in chunk:
                key = entry["path"]
                hidden = any(part.startswith(".") for part in key.split("/"))
                if not hidden and key.lower().endswith(suffixes):
                    found.append((folder + key, entry["e_tag"]))
    except OutputError as error:  # the URL itself
        raise SourceError(str(error)) from None
    except Exception as error:
        raise SourceError(f"{public_href(folder)} can't be listed: {fault(error)}") from None
    yield from sorted(found)  # most stores list in order, but not all promise it
