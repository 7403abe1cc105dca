"""Files that hold STAC items, read to plain dictionaries."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from .errors import SourceError
from .fetch import read_bytes, temporary_copy
from .hrefs import is_remote, local_path, public_href
from .query import Query

if TYPE_CHECKING:
    from .api import StacApi
    from .itemcolumns import CompleteRow

Item = dict[str, Any]
Key = tuple[str | None, str]

_PARQUET = (".parquet", ".geoparquet")
_LINES = (".ndjson", ".jsonl", ".geojsonl", ".ndgeojson")
_JSON = (".json", ".geojson")
_INDICES = ("catalog.json", "collection.json")


def is_stac_path(href: str) -> bool:
    """Whether a path or URL ends as a STAC file does."""
    return href_suffix(href) in (*_PARQUET, *_LINES, *_JSON)


def href_suffix(href: str) -> str:
    """Return the lower-case suffix of a path or URL, with its dot."""
    name = urlsplit(href).path if "://" in href else href
    return Path(name).suffix.lower()


class ItemFile:
    """The items that a file, a static catalog that starts at it, or an API's search holds.

    Parameters
    ----------
    href
        A path, a folder with a ``catalog.json`` or ``collection.json``, or a URL of a file or of an
        API's landing page.
    query
        What is asked of an API. Files know nothing of it: they are given whole.

    Attributes
    ----------
    searched
        Whether it turned out to be an API, so that the items are those that match the query; known
        once they have been read.

    Raises
    ------
    SourceError
        Here if `href` can't be a STAC file; later, while iterating, if its content is none.
    """

    def __init__(self, href: str, query: Query | None = None) -> None:
        self.href = _resolve(href)
        self.searched = False
        self._query = query or Query()
        self.name = public_href(self.href)
        self._suffix = href_suffix(self.href)
        self._spool: Any = None
        self._copy: Any = None

    def keys(self) -> Iterator[Key]:
        """Yield (collection, id) of every item, duplicates included."""
        if self._suffix in _PARQUET and self._spool is None:
            from .geoparquet import read_keys

            yield from self._guarded(read_keys)
            return
        for item, _ in self.items():
            yield item.get("collection"), item["id"]

    def freeze(self) -> None:
        """Read all items once, into a temporary file that later iterations read instead.

        For sources that are slow to walk: a static catalog, whose every item is a request, an API,
        and any file behind a network. Others are left as they are.
        """
        if self._spool is not None or not (is_remote(self.href) or self._suffix in _JSON):
            return
        if self._suffix in _PARQUET:
            self._copy = self._copy or temporary_copy(self.href)
            return
        spool = tempfile.NamedTemporaryFile("w", suffix=".ndjson", encoding="utf-8")  # noqa: SIM115
        for entry in self.items():
            json.dump(entry, spool)
            spool.write("\n")
        spool.flush()
        self._spool = spool

    def items(self) -> Iterator[tuple[Item, str]]:
        """Yield every item with the href of the file it stands in, to resolve its own hrefs by."""
        if self._spool is not None:
            with Path(self._spool.name).open(encoding="utf-8") as file:
                for line in file:
                    item, base = json.loads(line)
                    yield item, base
        elif self._suffix in _PARQUET:
            from .geoparquet import read_items

            for item in self._guarded(read_items):
                yield self.checked(item), self.href
        elif self._suffix in _LINES:
            yield from self._lines()
        else:
            yield from self._document()

    def rows(self, asset: str | None) -> Iterator[tuple[Item | CompleteRow, str]]:
        """Yield the same as `items`, complete rows of stac-geoparquet as such.

        Parameters
        ----------
        asset
            Key of the asset that scenes are made of; None if items are to be whole.
        """
        if asset is None or self._suffix not in _PARQUET or self._spool is not None:
            yield from self.items()
            return
        from .itemcolumns import CompleteRow, read_rows

        for row in self._guarded(lambda file: read_rows(file, asset)):
            yield row if isinstance(row, CompleteRow) else self.checked(row), self.href

    def api(self) -> StacApi | None:
        """Return the API, having asked for its landing page, or None where this is a file."""
        if not is_remote(self.href) or is_stac_path(self.href):
            return None
        return self._as_api(_parse(read_bytes(self.href), self.name))

    def _as_api(self, document: dict[str, Any]) -> StacApi | None:
        if (
            not is_remote(self.href)
            or document.get("type") not in (None, "Catalog")
            or "search" not in _rels(document)
        ):
            return None
        from .api import StacApi

        self.searched = True
        return StacApi(self.href, document)

    def _guarded(self, read) -> Iterator[Any]:  # noqa: ANN001
        import pyarrow as pa

        if is_remote(self.href):
            self._copy = self._copy or temporary_copy(self.href)
        path = local_path(self.href) if self._copy is None else Path(self._copy.name)
        assert path is not None
        try:
            yield from read(path)
        except FileNotFoundError:
            raise SourceError(f"{self.name} does not exist") from None
        except (pa.ArrowException, ValueError, KeyError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SourceError(f"{self.name} is not a stac-geoparquet file: {reason}") from None

    def _lines(self) -> Iterator[tuple[Item, str]]:
        path = local_path(self.href)
        if path is not None and not path.is_file():
            raise SourceError(f"{self.name} does not exist")
        with BytesIO(read_bytes(self.href)) if path is None else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    item = _parse(line, f"{self.name}, line {number},")
                    yield self.checked(item, f", line {number},"), self.href

    def _document(self) -> Iterator[tuple[Item, str]]:
        document = _parse(read_bytes(self.href), self.name)
        kind = document.get("type")
        rels = _rels(document)
        api = self._as_api(document)
        if api is not None:
            for item, base in api.search(self._query):
                yield self.checked(item), base
        elif kind == "FeatureCollection" and "next" in rels:
            raise SourceError(
                f"{self.name} is one page of a STAC API's answer: give the API's root as source.stac"
            )
        elif "conformsTo" in document and not rels & {"item", "child", "items"}:
            raise SourceError(
                f"{self.name} is an API without item search: give a STAC API that has it, or a file "
                "of items, as source.stac"
            )
        elif kind in ("Catalog", "Collection"):
            yield from self._walk(document)
        elif kind == "Feature":
            yield self.checked(document), self.href
        elif kind == "FeatureCollection" and isinstance(document.get("features"), list):
            for number, item in enumerate(document["features"]):
                yield self.checked(item, f", feature {number},"), self.href
        else:
            raise SourceError(
                f"{self.name} is JSON but no STAC item, item collection, collection or catalog"
            )

    def _walk(self, root: dict[str, Any]) -> Iterator[tuple[Item, str]]:
        """Follow the child and item links of a static catalog, each file once."""
        seen = {self.href}
        stack = [(root, self.href)]
        while stack:
            document, href = stack.pop()
            rels = _rels(document)
            if "items" in rels and not rels & {"item", "child"}:
                raise SourceError(
                    f"{public_href(href)} is a collection of a STAC API: give the API's root as "
                    f"source.stac, and {document.get('id')!r} in source.collections"
                )
            children = []
            for link in document.get("links", []):
                rel, target = link.get("rel"), link.get("href")
                if rel not in ("item", "child") or not target:
                    continue
                target = absolute_href(target, href)
                if target in seen:
                    continue
                seen.add(target)
                linked = _parse(read_bytes(target), public_href(target))
                if linked.get("type") == "Feature":
                    yield self.checked(linked, f" links to {public_href(target)}, which"), target
                else:
                    children.append((linked, target))
            stack += reversed(children)

    def checked(self, item: Any, place: str = "") -> Item:
        """Return `item`, or raise SourceError unless it has what every item has."""
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("id"), str)
            or not isinstance(item.get("assets"), dict)
            or not isinstance(item.get("properties"), dict)
        ):
            raise SourceError(
                f"{self.name}{place} is no STAC item: it needs an id, properties and assets"
            )
        return item


def absolute_href(href: str, base: str) -> str:
    """Return `href` as a URL or absolute path, resolved against the file `base`."""
    if "://" in href or href.startswith("/vsi"):
        return href
    if is_remote(base):
        if base.startswith(("http://", "https://")):
            return urljoin(base, href)
        scheme, _, rest = base.partition("://")  # urljoin doesn't know object stores
        return scheme + urljoin("http://" + rest, href).removeprefix("http")
    folder = (local_path(base) or Path(base)).parent
    return str(Path(_normal(folder / href)))


def _normal(path: Path) -> str:
    import os.path

    return os.path.normpath(path.absolute())


def _resolve(href: str) -> str:
    if is_remote(href):
        if not is_stac_path(href) and urlsplit(href).scheme.lower() not in ("http", "https"):
            raise SourceError(
                f"{public_href(href)} is neither a STAC file (.json, .parquet, .ndjson) nor a STAC "
                "API (https://…)"
            )
        return href
    path = (local_path(href) or Path(href)).expanduser()
    if path.is_dir():
        for name in _INDICES:
            if (path / name).is_file():
                path = path / name
                break
        else:
            raise SourceError(
                f"{path} is a folder without catalog.json or collection.json: "
                "name a STAC file, or give the folder as source.rasters"
            )
    return _normal(path)


def _rels(document: dict[str, Any]) -> set[Any]:
    return {link.get("rel") for link in document.get("links") or () if isinstance(link, dict)}


def _parse(data: bytes, name: str) -> dict[str, Any]:
    if not data.strip():
        raise SourceError(f"{name} is empty: give a STAC file")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise SourceError(f"{name} is JSON but no STAC object")
    return document
