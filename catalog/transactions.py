"""A STAC API that takes changes: its transaction extension, in plain documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urljoin

from .apihttp import AnswerError, ApiHttp, ApiStatusError
from .errors import OutputError, SourceError, StorageError
from .hrefs import public_href

Document = dict[str, Any]

_TRANSACTIONS = "/ogcapi-features/extensions/transaction"
_FIELDS = "/item-search#fields"
_PAGE = 500  # of whole items
_SHORT_PAGE = 2000  # of items of which the server sends two fields


class RefusedError(OutputError):
    """The server does not take a document, for a reason that lies in it."""


class TransactionApi:
    """A STAC API with the transaction extension.

    All methods raise `OutputError` where the server refuses, and its children `RefusedError` where it
    refuses this document and `StorageError` where it can't be reached or can't answer.

    Parameters
    ----------
    href
        Of the landing page, credentials included.
    token
        Bearer token, in place of user and password.
    backoff_s
        As in `ApiHttp`.

    Raises
    ------
    OutputError
        If there is no STAC API, or it takes no changes.
    """

    def __init__(self, href: str, *, token: str | None = None, backoff_s: float = 0.5) -> None:
        if not href.startswith(("http://", "https://")):
            raise OutputError(f"{public_href(href)} is not the URL of a STAC API: write https://…")
        self._http = ApiHttp(href, token=token, backoff_s=backoff_s)
        self.name = self._http.name
        self._takes_batches = True
        with self._errors():
            try:
                landing = self._http.fetch(self._http.root)
            except AnswerError:
                landing = {}
            except ApiStatusError as error:
                if error.status != 404:
                    raise
                landing = {}
        links = {
            str(link.get("rel")): str(link.get("href"))
            for link in landing.get("links") or ()
            if isinstance(link, dict)
        }
        if "data" not in links:
            raise OutputError(f"{self.name} is not a STAC API: name its landing page")
        self._classes = landing.get("conformsTo") or self._conformance(links)
        if not self._conforms(_TRANSACTIONS):
            raise OutputError(
                f"{self.name} takes no changes (no transaction extension): publish to an API that "
                "does, or have it switched on there"
            )
        self._collections = urljoin(self._http.root, links["data"]).rstrip("/")
        self._search = urljoin(self._http.root, links["search"]) if "search" in links else None

    def collection(self, name: str) -> Document | None:
        """Return a collection, or None where there is none."""
        with self._errors():
            try:
                return self._http.fetch(self._of(name))
            except ApiStatusError as error:
                if error.status != 404:
                    raise
                return None

    def put_collection(self, document: Document, *, there: bool = False) -> None:
        """Create or replace a collection; `there` if it should be there already."""
        with self._errors():
            self._put(self._collections, self._of(document["id"]), document, there=there)

    def standing(self, name: str, field: str) -> Iterator[tuple[str, str | None]]:
        """Yield the id of each item of a collection, and its property `field`; some may come twice."""
        url, method, parameters = f"{self._of(name)}/items", None, {"limit": _PAGE}
        if self._search is not None and self._conforms(_FIELDS):
            # Two fields instead of a whole item.
            url, method = self._search, "POST"
            fields = {"include": ["id", f"properties.{field}"], "exclude": ["assets", "links"]}
            parameters = {"collections": [name], "limit": _SHORT_PAGE, "fields": fields}
        with self._errors():
            for page in self._http.get_pages(url, method, parameters):
                for item in page.get("features") or ():
                    yield str(item["id"]), (item.get("properties") or {}).get(field)

    def create(self, name: str, items: Sequence[Document]) -> list[tuple[str, str]]:
        """Create items, or replace those that are there after all.

        Returns
        -------
        list of (str, str)
            Ids of those that the server refuses, and its reasons.
        """
        url = f"{self._of(name)}/items"
        if len(items) > 1 and self._takes_batches:
            with self._errors():
                try:
                    document = {"type": "FeatureCollection", "features": list(items)}
                    self._http.change("POST", url, document)
                except ApiStatusError as error:
                    if error.status in (401, 403, 429, 503):
                        raise
                    # One by one will tell which is at fault, or whether it was the batch.
                    self._takes_batches = error.status in (400, 409)
                else:
                    return []
        refused = []
        for item in items:
            try:
                self.put_item(name, item)
            except RefusedError as error:
                refused.append((str(item["id"]), str(error)))
        return refused

    def put_item(self, name: str, item: Document, *, there: bool = False) -> None:
        """Create or replace an item; `there` if it should be there already."""
        url = f"{self._of(name)}/items"
        with self._errors():
            self._put(url, f"{url}/{quote(item['id'], safe='')}", item, there=there)

    def delete_item(self, name: str, item_id: str) -> None:
        """Delete an item; nothing happens if it isn't there."""
        with self._errors():
            try:
                self._http.change("DELETE", f"{self._of(name)}/items/{quote(item_id, safe='')}")
            except ApiStatusError as error:
                if error.status != 404:
                    raise

    def _put(self, all_of_them: str, own: str, document: Document, *, there: bool) -> None:
        # A request whose answer got lost is sent again, and somebody else may be at work, too: what
        # was absent may be there now, and what was there may be gone.
        ways = [("POST", all_of_them, 409), ("PUT", own, 404)]
        (first, url, otherwise), (second, other, _) = reversed(ways) if there else ways
        try:
            self._http.change(first, url, document)
        except ApiStatusError as error:
            if error.status != otherwise:
                raise
            self._http.change(second, other, document)

    def _of(self, name: str) -> str:
        return f"{self._collections}/{quote(name, safe='')}"

    def _conforms(self, extension: str) -> bool:
        return any(extension in str(name) for name in self._classes)

    def _conformance(self, links: dict[str, str]) -> list[str]:
        if "conformance" not in links:
            return []
        with self._errors():
            page = self._http.fetch(urljoin(self._http.root, links["conformance"]))
        return page.get("conformsTo") or []

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what a source would be blamed for into what a destination is."""
        try:
            yield
        except ApiStatusError as error:
            said = f": {error.detail}" if error.detail else ""
            if error.status in (401, 403):
                raise OutputError(
                    f"{self.name} refuses access (HTTP {error.status}){said}; put user and password "
                    "into the URL of --to, or a token into the environment as GEOSWEEP_STAC_TOKEN"
                ) from None
            if error.status == 429 or error.status >= 500:
                raise StorageError(
                    f"{self.name} can't answer (HTTP {error.status}){said}; try again later: the "
                    "same command goes on where it stopped"
                ) from None
            raise RefusedError(f"{self.name} refused (HTTP {error.status}){said}") from None
        except SourceError as error:
            raise StorageError(f"{error}; the same command goes on where it stopped") from None
