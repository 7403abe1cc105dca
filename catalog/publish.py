"""An output's collection and items, brought to a STAC API that takes changes."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ._scratch import Scratch
from .errors import OutputError
from .hrefs import public_href
from .records import ITEMS, Records
from .storage import Storage

if TYPE_CHECKING:
    from .transactions import TransactionApi

MARK = "geosweep:published"
"""Where a published document keeps a hash of itself, by which the next publishing knows it."""

_TOKEN = "GEOSWEEP_STAC_TOKEN"
_BATCH = 100  # new items sent at a time
_BATCH_BYTES = 2_000_000
_MOST_PROBLEMS = 100
# The API makes these itself.
_LINKS_OF_THE_API = ("root", "parent", "self", "collection", "item", "items")

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class PublishReport:
    """What `publish_output` did, or would have done.

    Attributes
    ----------
    collection
        ``created``, ``updated`` or ``unchanged``.
    created, updated, unchanged, deleted
        Numbers of items.
    left_out
        Failed scenes, which were not published.
    refused
        Number of items that the server does not take.
    problems
        Ids of the first 100 of them, and its reasons.
    base
        Where the published hrefs point.
    """

    collection: str = "unchanged"
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    left_out: int = 0
    refused: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    base: str = ""


def publish_output(
    storage: Storage,
    collection: dict[str, Any],
    url: str,
    *,
    collection_id: str | None = None,
    href: str | None = None,
    failed: bool = False,
    prune: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    backoff_s: float = 0.5,
) -> PublishReport:
    """Create or update a collection and its items on a STAC API; safe to repeat.

    What the API has already is not sent. Memory does not grow with the number of items.

    Parameters
    ----------
    storage
        Of the output.
    collection
        From `read_collection`.
    url
        The API's landing page, with credentials if it needs any; a bearer token is taken from
        ``GEOSWEEP_STAC_TOKEN``. They are sent to that server alone.
    collection_id
        Its name there, if not the output's.
    href
        URL under which others find the output's files; the output's own location where not given.
    failed
        Publish failed scenes, too, which have no data. Otherwise one that was published before it
        failed is deleted there, since its file is gone.
    prune
        Delete the items of that collection that the output hasn't got.
    dry_run
        Only compare.
    progress
        Called with the numbers of items done and to do.
    backoff_s
        The second wait after a failed request; each doubles the one before.

    Raises
    ------
    OutputError
        If the API takes no changes, refuses access, or has a collection of that name which is not
        geosweep's; if `href` grants access.
    StorageError
        If the API or the output can't be reached; what was sent stays, and a repeat goes on.
    """
    from .transactions import TransactionApi

    base = _base(storage, href)
    name = collection_id or str(collection["id"])
    api = TransactionApi(url, token=os.environ.get(_TOKEN), backoff_s=backoff_s)
    work = _Publishing(api, name, base, failed=failed, dry_run=dry_run)
    try:
        work.collection(collection)
        work.items(storage, progress)
        work.deletions(prune=prune)
    finally:
        work.close()
    return work.report


class _Publishing:
    """One pass over an output."""

    def __init__(
        self, api: TransactionApi, name: str, base: str, *, failed: bool, dry_run: bool
    ) -> None:
        self.report = PublishReport(base=base)
        self._api = api
        self._name = name
        self._base = base
        self._failed = failed
        self._dry_run = dry_run
        # What the API has: `state` is 0 for items that the output hasn't got, 1 for those it has, and
        # 2 for scenes that failed since they were published.
        self._there = Scratch(
            "CREATE TABLE there (id TEXT PRIMARY KEY, mark TEXT, state INTEGER) WITHOUT ROWID"
        )
        self._new: list[dict[str, Any]] = []
        self._bytes = 0

    def close(self) -> None:
        self._there.close()

    def collection(self, collection: dict[str, Any]) -> None:
        document = _published(collection, "", self._base)
        document["id"] = self._name
        mark, _ = _mark(document)
        document[MARK] = mark
        standing = self._api.collection(self._name)
        if standing is None:
            self.report.collection = "created"
        elif "geosweep:fingerprint" not in standing:
            raise OutputError(
                f"{self._api.name} has a collection {self._name!r} that is not geosweep's: name "
                "another with --collection"
            )
        elif standing.get(MARK) != mark:
            self.report.collection = "updated"
        if self.report.collection != "unchanged" and not self._dry_run:
            self._api.put_collection(document, there=standing is not None)
        if standing is not None:
            rows = ((name, mark) for name, mark in self._api.standing(self._name, MARK))
            self._there.fill("INSERT OR REPLACE INTO there VALUES (?, ?, 0)", rows)

    def items(self, storage: Storage, progress: Progress | None) -> None:
        total = 0
        if progress is not None:
            total = sum(1 for _ in storage.list(ITEMS, ".json", sort=False))
        for done, item in enumerate(Records(storage).items(sort=False), 1):
            if item["properties"].get("geosweep:status") == "failed" and not self._failed:
                self._leave_out(item["id"])
            else:
                self._item(item)
            if progress is not None:
                progress(done, max(done, total))
        self._flush()

    def deletions(self, *, prune: bool) -> None:
        states = "state IN (0, 2)" if prune else "state = 2"
        for (name,) in self._there.execute(f"SELECT id FROM there WHERE {states} ORDER BY id"):
            if not self._dry_run:
                self._api.delete_item(self._name, name)
            self.report.deleted += 1

    def _leave_out(self, name: str) -> None:
        """A failed scene's file is gone: if an item is there, it promises what nobody has."""
        self.report.left_out += 1
        self._there.execute("UPDATE there SET state = 2 WHERE id = ?", (name,))

    def _item(self, item: dict[str, Any]) -> None:
        document = _published(item, ITEMS, self._base)
        document["collection"] = self._name
        mark, size = _mark(document)
        document["properties"][MARK] = mark
        there = self._there.first("SELECT mark FROM there WHERE id = ?", (document["id"],))
        if there is not None:
            self._there.execute("UPDATE there SET state = 1 WHERE id = ?", (document["id"],))
            if there[0] == mark:
                self.report.unchanged += 1
            elif self._sent(document, there=True):
                self.report.updated += 1
        elif document.get("geometry") is None:
            # By itself: some servers take none without a place, and would refuse the whole batch.
            self.report.created += self._sent(document, there=False)
        else:
            self._new.append(document)
            self._bytes += size
            if len(self._new) == _BATCH or self._bytes > _BATCH_BYTES:
                self._flush()

    def _sent(self, document: dict[str, Any], *, there: bool) -> bool:
        from .transactions import RefusedError

        if self._dry_run:
            return True
        try:
            self._api.put_item(self._name, document, there=there)
        except RefusedError as error:
            self._refuse([(document["id"], str(error))])
            return False
        return True

    def _flush(self) -> None:
        new, self._new, self._bytes = self._new, [], 0
        refused = [] if self._dry_run or not new else self._api.create(self._name, new)
        self.report.created += len(new) - len(refused)
        self._refuse(refused)

    def _refuse(self, refused: list[tuple[str, str]]) -> None:
        report = self.report
        report.refused += len(refused)
        report.problems += refused[: _MOST_PROBLEMS - len(report.problems)]
        taken = report.created + report.updated + report.unchanged
        if report.refused >= _MOST_PROBLEMS and not taken:
            name, reason = report.problems[0]
            raise OutputError(f"{reason} ({name}); no item was taken, so the rest was not tried")


def _base(storage: Storage, href: str | None) -> str:
    if href is None:
        return storage.uri().rstrip("/")
    if public_href(href) != href:
        raise OutputError(
            f"--href {public_href(href)} holds credentials or a query, which would be published: "
            "give the plain URL"
        )
    if "://" not in href and not posixpath.isabs(href):
        raise OutputError(f"--href {href} is no URL: write https://… or s3://…")
    return href.rstrip("/")


def _published(document: dict[str, Any], folder: str, base: str) -> dict[str, Any]:
    """A document as it is published: absolute hrefs, and without the links that the API makes."""
    links = [
        link | {"href": _absolute(link["href"], folder, base)}
        for link in document["links"]
        if link["rel"] not in _LINKS_OF_THE_API
    ]
    parts = {
        # A path on this machine is no link, and an API would put its own address before it.
        "links": [link for link in links if "://" in link["href"]],
        "assets": {
            key: asset | {"href": _absolute(asset["href"], folder, base)}
            for key, asset in document.get("assets", {}).items()
        },
    }
    if "properties" in document:
        parts["properties"] = dict(document["properties"])
    return document | parts


def _absolute(href: str, folder: str, base: str) -> str:
    if ":" in href.partition("/")[0] or href.startswith("/"):
        return href
    key = posixpath.normpath(posixpath.join(folder, href))
    return f"{base}/{quote(key, safe='/=') if '://' in base else key}"


def _mark(document: dict[str, Any]) -> tuple[str, int]:
    """A hash of a document, and its size in bytes."""
    data = json.dumps(document, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:32], len(data)
