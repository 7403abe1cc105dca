"""STAC APIs, searched to plain items."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

from .apihttp import ApiHttp, ApiStatusError
from .area import overlap
from .cql import ItemFilter
from .errors import SourceError
from .intervals import Interval, format_time
from .lonlat import polygon_of
from .query import Query

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Item = dict[str, Any]

log = logging.getLogger("geosweep")

_MOST_VERTICES = 1000  # of an area that is sent; servers limit a request to 1 MB or less


class StacApi:
    """A STAC API.

    Parameters
    ----------
    href
        URL of the landing page, credentials included.
    landing
        The landing page.
    """

    def __init__(self, href: str, landing: dict[str, Any]) -> None:
        self._http = ApiHttp(href)
        self._landing = landing
        self._there: set[str] = set()

    def search(self, query: Query) -> Iterator[tuple[Item, str]]:
        """Yield the items that match, page by page, each with the href that its own are relative to.

        Items that the server repeats are repeated. What the server can't do is done here where it
        can be, with a warning.

        Raises
        ------
        SourceError
            If the server can't be reached, refuses the search, has no such collection, or should
            sort and can't.
        """
        from pystac_client import ItemSearch

        self._check_collections(query.collections or ())
        if query.sortby and not self.conforms("sort"):
            raise SourceError(
                f"{self._http.name} can't sort (no sort extension): leave source.sortby out"
            )
        checked = None if query.filter is None else ItemFilter(query.filter)
        sends_filter = checked is None or self.conforms("filter")
        if not sends_filter:
            log.warning(
                "%s has no filter extension: all items are fetched, and source.filter is applied "
                "here",
                self._http.name,
            )
        href, method = self._search_link()
        search = ItemSearch(
            href,
            method=method,
            stac_io=self._http,
            # Where the filter is applied here, a few matches may take many items.
            limit=min(query.page, query.limit or query.page) if sends_filter else query.page,
            ids=list(query.ids) if query.ids else None,
            fields=list(query.fields) if query.fields else None,
            collections=list(query.collections) if query.collections else None,
            datetime=_interval_text(query.interval),
            filter=query.filter if sends_filter else None,
            filter_lang="cql2-json" if sends_filter and query.filter else None,
            sortby=list(query.sortby) if query.sortby else None,
            **_area_parameters(query.area),
        )
        given: set[tuple[str | None, str]] = set()
        for page in self._http.get_pages(search.url, search.method, search.get_parameters()):
            features = page.get("features")
            if not isinstance(features, list):
                raise SourceError(f"{self._http.name} answered a search without a list of features")
            for item in features:
                if not sends_filter and checked is not None and not checked.matches(item):
                    continue
                if not _inside(query.area, item):
                    continue
                yield item, self._base(item)
                if query.limit is not None:
                    given.add((item.get("collection"), item.get("id", "")))
                    if len(given) >= query.limit:
                        return

    def _check_collections(self, wanted: tuple[str, ...]) -> None:
        """Raise SourceError for a collection that isn't there; servers just find nothing in it."""
        links = _links(self._landing, "data")
        if not links:
            return
        href = urljoin(self._http.root, links[0]["href"])
        for name in wanted:
            if name in self._there:
                continue
            try:
                self._http.fetch(f"{href.rstrip('/')}/{quote(name, safe='')}")
                self._there.add(name)
            except ApiStatusError as error:
                if error.status != 404:
                    raise
                raise SourceError(
                    f"{self._http.name} has no collection {name!r}: {self._hint(href, name)}"
                ) from None

    def _hint(self, href: str, name: str) -> str:
        names = [
            str(collection.get("id"))
            for page in self._http.get_pages(href)
            for collection in page.get("collections", [])
        ]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        if near:
            return f"did you mean {near[0]!r}?"
        if not names:
            return "it has none at all"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return f"it has {', '.join(names[:10])}{more}"

    @cached_property
    def _conformance(self) -> list[str]:
        classes = self._landing.get("conformsTo")
        links = _links(self._landing, "conformance")
        if classes is None and links:
            page = self._http.fetch(urljoin(self._http.root, links[0]["href"]))
            classes = page.get("conformsTo")
        return [str(name) for name in classes or ()]

    def conforms(self, extension: str) -> bool:
        """Whether searches have an extension, such as ``filter``, ``sort`` or ``fields``."""
        return any(f"/item-search#{extension}" in name for name in self._conformance)

    def _search_link(self) -> tuple[str, str]:
        """URL and method of the search: POST where it is offered, since areas are long."""
        links = _links(self._landing, "search")
        best = max(links, key=lambda link: str(link.get("method", "GET")).upper() == "POST")
        return urljoin(self._http.root, best["href"]), str(best.get("method", "GET")).upper()

    def _base(self, item: Item) -> str:
        own = _links(item, "self")
        return urljoin(self._http.root, own[0]["href"]) if own else self._http.root


def _links(document: dict[str, Any], rel: str) -> list[dict[str, Any]]:
    links = document.get("links")
    if not isinstance(links, list):
        return []
    return [x for x in links if isinstance(x, dict) and x.get("rel") == rel and x.get("href")]


def _interval_text(interval: Interval | None) -> str | None:
    if interval is None:
        return None
    start, end = interval
    if start is not None and start == end:
        return format_time(start)
    return "/".join(".." if moment is None else format_time(moment) for moment in (start, end))


def _area_parameters(area: BaseGeometry | None) -> dict[str, Any]:
    """The area as the API takes it: a box as `bbox`, which every server has an index for."""
    import shapely
    from shapely.geometry import mapping

    if area is None:
        return {}
    if shapely.get_num_coordinates(area) > _MOST_VERTICES:
        area = area.convex_hull  # `_inside` sees to the rest
        if shapely.get_num_coordinates(area) > _MOST_VERTICES:
            area = area.envelope
    if area.equals(area.envelope):
        return {"bbox": list(area.bounds)}
    return {"intersects": mapping(area)}


def _inside(area: BaseGeometry | None, item: Item) -> bool:
    from shapely import box

    if area is None:
        return True
    # A missing or doubtful geometry is no reason to leave the item out.
    footprint = polygon_of(item.get("geometry"), lambda: box(-180, -90, 180, 90))
    return footprint is None or overlap(area, footprint)
