"""The present scenes of a STAC API, from an earlier plan and what the API says has changed since."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ._scratch import Scratch
from .errors import SourceError
from .ids import SceneIds
from .intervals import format_time, parse_time
from .sources import ItemSource

if TYPE_CHECKING:
    from .api import StacApi
    from .planfile import PlanFile
    from .scene import Scene
    from .sources import Source

Item = dict[str, Any]
Expression = dict[str, Any]

OVERLAP = timedelta(hours=1)
"""How far back before the latest known `updated` a search begins: servers stamp items before they show
them, and several writers don't finish in the order in which they stamped."""

EVERYTHING = ".."
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FIELDS = (
    "id",
    "collection",
    "geometry",  # areas are sent simplified, and held against it here
    "properties.datetime",
    "properties.start_datetime",
    "properties.end_datetime",
)
_LISTED_PAGE = 1000
_IDS_PAGE = 100

log = logging.getLogger("geosweep")


def api_delta(source: Source, plan: PlanFile | None, since: str | None) -> ApiDelta | None:
    """Return the cheap way to a source's present scenes, or None where all has to be looked at.

    Parameters
    ----------
    source
        Of the job.
    plan
        Frozen over the same source by an earlier pass.
    since
        Time to search from, RFC 3339, in place of the plan's watermark less the overlap; ``..`` for
        everything.

    Raises
    ------
    SourceError
        If `since` is no time, or the API can't be reached.
    """
    start = _start(plan, since)
    if plan is None or start is None or not isinstance(source, ItemSource):
        return None
    if source.spec.limit is not None:
        return None  # which the first ones are, a delta can't tell
    if plan.hrefs == "cut" or (plan.hrefs == "signed" and source.spec.sign is None):
        return None  # its scenes can't be read again
    api = source.api()
    if api is None or not (api.conforms("filter") and api.conforms("fields")):
        return None
    known = EPOCH if plan.watermark is None else parse_time(plan.watermark) - OVERLAP
    for form in (_as_text, _as_timestamp):
        if _finds(api, source, form(known)):
            log.info("asking for items that were updated since %s", format_time(start))
            return ApiDelta(source, api, plan, form(start))
    log.warning(
        "%s finds nothing by `updated`, not even what it gave before: everything is looked at",
        source.describe(),
    )
    return None


class ApiDelta:
    """Scenes of an API: those updated since some time, and the others from an earlier plan.

    Parameters
    ----------
    source, api, plan
        As in `api_delta`.
    recent
        CQL2 that finds the items that were updated of late.
    """

    def __init__(
        self, source: ItemSource, api: StacApi, plan: PlanFile, recent: Expression
    ) -> None:
        self._source = source
        self._api = api
        self._plan = plan
        self._recent = recent

    def scenes(self) -> Iterator[Scene]:
        """Yield every present scene once: the updated ones, the known ones, the unknown ones."""
        items = Scratch(
            "CREATE TABLE items (collection TEXT, id TEXT, wanted INTEGER, given INTEGER DEFAULT 0, "
            "repeats INTEGER DEFAULT 0, PRIMARY KEY (id, collection)) WITHOUT ROWID"
        )
        try:
            items.fill(
                "INSERT INTO items (collection, id, wanted) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET repeats = repeats + 1",
                self._listed(),
            )
            repeats = items.first("SELECT sum(repeats) FROM items")[0]
            self._source.duplicates = repeats or 0
            ids = SceneIds(row[0] for row in items.execute("SELECT id FROM items"))
            yield from self._source.among(_first_time(self._updated(), items), ids)
            yield from self._known(items, ids)
            yield from self._source.among(_first_time(self._unknown(items), items), ids)
        finally:
            items.close()

    def _listed(self) -> Iterator[tuple[str, str, bool]]:
        """(collection, id, whether it is one of the source's) of all items there are now."""
        query = replace(self._source.query, fields=_FIELDS, page=_LISTED_PAGE)
        for item, _ in self._api.search(query):
            if not isinstance(item.get("id"), str):
                raise SourceError(f"{self._source.describe()}: an item has no id")
            item["properties"] = item.get("properties") or {}
            yield item.get("collection") or "", item["id"], self._source.wants(item)

    def _updated(self) -> Iterator[tuple[Item, str]]:
        query = self._source.query
        return self._api.search(replace(query, filter=_both(query.filter, self._recent)))

    def _known(self, items: Scratch, ids: SceneIds) -> Iterator[Scene]:
        for scene in self._plan.scenes():
            if scene.error is not None:
                continue  # what was wrong with it when it was planned may be well now
            if _take(items, scene.collection, scene.item_id):
                name = ids(scene.item_id, f"{scene.collection}\x1f{scene.item_id}")
                yield scene if scene.id == name else replace(scene, id=name)

    def _unknown(self, items: Scratch) -> Iterator[tuple[Item, str]]:
        """Items that were neither updated of late nor planned, so that the watermark missed them."""
        left = items.execute("SELECT id FROM items WHERE wanted AND NOT given").fetchall()
        names = sorted({row[0] for row in left})
        for first in range(0, len(names), _IDS_PAGE):
            asked = tuple(names[first : first + _IDS_PAGE])
            yield from self._api.search(replace(self._source.query, ids=asked))


def _as_text(moment: datetime) -> Expression:
    # What pgstac can do where nobody told it that `updated` is a time; others take text for times.
    return {"op": ">=", "args": [{"property": "updated"}, format_time(moment)]}


def _as_timestamp(moment: datetime) -> Expression:
    return {"op": ">=", "args": [{"property": "updated"}, {"timestamp": format_time(moment)}]}


def _finds(api: StacApi, source: ItemSource, recent: Expression) -> bool:
    """Whether a server finds any item this way; one that compares other types may find none.

    The item with the plan's watermark is found by what works, unless it is gone.
    """
    from .apihttp import ApiStatusError

    query = replace(
        source.query, filter=_both(source.query.filter, recent), fields=_FIELDS, limit=1
    )
    try:
        return any(True for _ in api.search(query))
    except ApiStatusError:
        return False


def _both(one: Expression | None, other: Expression) -> Expression:
    return other if one is None else {"op": "and", "args": [one, other]}


def _first_time(entries: Iterable[tuple[Item, str]], items: Scratch) -> Iterator[tuple[Item, str]]:
    """Items that are listed and were not given yet."""
    for item, base in entries:
        if _take(items, item.get("collection"), str(item.get("id"))):
            yield item, base


def _take(items: Scratch, collection: str | None, item_id: str) -> bool:
    done = items.execute(
        "UPDATE items SET given = 1 WHERE id = ? AND collection = ? AND wanted AND NOT given",
        (item_id, collection or ""),
    )
    return done.rowcount == 1


def _start(plan: PlanFile | None, since: str | None) -> datetime | None:
    if since == EVERYTHING:
        return None
    if since is not None:
        try:
            return parse_time(since)
        except ValueError:
            raise SourceError(
                f"since is {since!r}: give a time such as 2026-11-01T00:00:00Z, or .. for everything"
            ) from None
    if plan is None or plan.watermark is None:
        return None
    return parse_time(plan.watermark) - OVERLAP
