"""What every kind of source is: a stream of scenes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .area import area_of_interest, overlap
from .intervals import Interval, overlaps, parse_interval
from .scene import Scene
from .spec import SourceSpec
from .stamps import Stamps

if TYPE_CHECKING:
    from .knownheaders import KnownHeaders


class Source:
    """A stream of scenes that can be iterated again and again, always in the same order.

    Attributes
    ----------
    spec
        What was asked for.
    key
        Hash of all that decides the set of scenes, set by `open_source`.
    area
        Area of interest in EPSG:4326, or None where there is no limit.
    known
        Headers from an earlier plan, to be set by whoever has one: they are not read again.
    total
        Distinct entries before any filter; known once iteration has begun (at once for rasters). Of
        an API, those that its search gave.
    duplicates, outside_aoi, outside_datetime, other_collection, filtered_out
        How many entries were left out, and why; of the latest iteration. Scenes whose footprint or
        time is not known are never left out. What an API's search leaves out is not known.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        self.key = ""
        self.area = area_of_interest(spec.bbox, spec.intersects)
        self._interval = parse_interval(spec.datetime) if spec.datetime else None
        self.known: KnownHeaders | None = None
        self.total: int | None = None
        self._reset()

    def __iter__(self) -> Iterator[Scene]:
        self._reset()
        yield from self._stamped(self._wanted())

    def _wanted(self) -> Iterator[Scene]:
        given = 0
        for scene in self._scenes():
            if self._inside(scene):
                yield scene
                given += 1
                if given == self.spec.limit:
                    return
            else:
                self.outside_aoi += 1

    def describe(self) -> str:
        """Return in a few words what the source is, for people; without secrets."""
        raise NotImplementedError

    def _scenes(self) -> Iterator[Scene]:
        raise NotImplementedError

    def _stamped(self, scenes: Iterable[Scene]) -> Iterator[Scene]:
        """Yield scenes with the versions that servers have of their rasters."""
        self._stamps.known = self.known
        return self._stamps.complete(scenes)

    def _inside(self, scene: Scene) -> bool:
        return self.area is None or scene.footprint is None or overlap(self.area, scene.footprint)

    def _reset(self) -> None:
        self._stamps = Stamps(self.spec.sign)
        self.duplicates = self.outside_aoi = self.outside_datetime = self.other_collection = 0
        self.filtered_out = 0

    def _in_time(self, taken: Interval) -> bool:
        if self._interval is None or taken == (None, None) or overlaps(self._interval, taken):
            return True
        self.outside_datetime += 1
        return False
