"""Where and when an output's items are: the extent and the summaries of its collection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from .intervals import format_time, parse_time

_MOST_CODES = 200
_WORLD = [-180.0, -90.0, 180.0, 90.0]


class Extent:
    """The extent of items that pass by; memory doesn't grow with their number."""

    def __init__(self) -> None:
        self._south, self._north = 90.0, -90.0
        # West and east in both ways of counting longitude: from -180 and from 0. Items on both sides
        # of the antimeridian are near each other in the second.
        self._from_west = (180.0, -180.0)
        self._from_zero = (360.0, 0.0)
        self._placed = False
        self._start: datetime | None = None
        self._end: datetime | None = None
        self._codes: set[str] = set()

    def watch(self, items: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield `items` as they are, and note where and when each is."""
        for item in items:
            self._add_bbox(item.get("bbox"))
            self._add_times(item["properties"])
            code = item["properties"].get("proj:code")
            if code is not None and len(self._codes) <= _MOST_CODES:
                self._codes.add(code)
            yield item

    def describe(self, collection: dict[str, Any]) -> None:
        """Put extent and summaries into a collection, in place."""
        collection["extent"] = {
            "spatial": {"bbox": [self._bbox()]},
            "temporal": {"interval": [[_text(self._start), _text(self._end)]]},
        }
        summaries = collection.setdefault("summaries", {})
        summaries.pop("proj:code", None)
        if 0 < len(self._codes) <= _MOST_CODES:
            summaries["proj:code"] = one_of(sorted(self._codes))
        if not summaries:
            del collection["summaries"]

    def _add_bbox(self, bbox: list[float] | None) -> None:
        if bbox is None or len(bbox) != 4:
            return
        west, south, east, north = bbox
        self._placed = True
        self._south, self._north = min(self._south, south), max(self._north, north)
        across = west > east
        self._from_west = _widened(
            self._from_west, -180 if across else west, 180 if across else east
        )
        if not across and west < 0 <= east:
            self._from_zero = (0.0, 360.0)
        else:
            self._from_zero = _widened(self._from_zero, west % 360, east % 360)

    def _add_times(self, properties: dict[str, Any]) -> None:
        if properties.get("geosweep:datetime_unknown"):
            return
        time = properties.get("datetime")
        for text in (
            properties.get("start_datetime") or time,
            properties.get("end_datetime") or time,
        ):
            if text is not None:
                moment = parse_time(text)
                self._start = min(self._start or moment, moment)
                self._end = max(self._end or moment, moment)

    def _bbox(self) -> list[float]:
        if not self._placed:
            return list(_WORLD)
        west, east = self._from_west
        other_west, other_east = self._from_zero
        if other_east - other_west < east - west:
            west, east = (x - 360 if x > 180 else x for x in (other_west, other_east))
        return [west, self._south, east, self._north]


def one_of(values: list[str]) -> dict[str, Any]:
    """Return a summary that says which values there are.

    As a JSON schema, which STAC takes as well as a list: the MLM extension's schema wants each
    summary to be an object.
    """
    return {"type": "string", "enum": values}


def _widened(span: tuple[float, float], west: float, east: float) -> tuple[float, float]:
    return min(span[0], west), max(span[1], east)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
