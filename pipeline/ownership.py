"""Which scene each ground point belongs to, where scenes overlap.

Scenes are ranked, by default the latest first. A point belongs to the best-ranked scene that holds it
away from its border, or, where every scene has its border there, to the best-ranked that holds it at
all. "Away from the border" means by the overlap of the windows: an object up to twice that wide whose
centre a scene owns is not cut off by that scene's edge, the same promise that window cores give.

Two scenes without dates of which one covers the other are taken for two views of the same ground, not
for neighbours: neither is the latest, and to drop a raster whole that a user named would surprise. Both
keep everything, and the log says so.

Footprints lie in a temporary database (`_placeindex`), so that memory does not grow with the number of
scenes, and the first scene's neighbours are known as soon as the last footprint is in.

What a scene does *not* own is kept, rather than what it does: so nothing is lost to rounding along a
scene's outer border, where nobody else could claim it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import shapely

from ..catalog.planfile import PlanFile
from ._inner import inner_footprints
from ._placeindex import PlaceIndex
from ._places import Land, Place, place_of, places_of_plan, places_of_scenes

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..catalog import Scene

log = logging.getLogger("geosweep")

SAME_GROUND = 0.9
"""Share of the smaller of two undated scenes that the other covers, from which they are two views."""

_LATELY = 4096
"""Places, and footprints without borders, that are kept in memory."""
_TOGETHER = 256
"""Neighbours of scenes that are worked out together."""

K = TypeVar("K")
V = TypeVar("V")


class Crowd(NamedTuple):
    """A scene and those others that may own some of its ground."""

    own: Place
    others: list[Place]


class Ownership:
    """Ownership of overlapping scenes by rank, computed from their footprints.

    Parameters
    ----------
    scenes
        All scenes of the source, whether they will be processed or not, taken one at a time; or a plan,
        whose scenes and retained scenes are read faster.
    overlap_pixels
        Shared pixels of neighbouring windows; times a scene's GSD, its border's width.

    Raises
    ------
    JobError
        If this Python's SQLite can't search by place.
    """

    def __init__(self, scenes: Iterable[Scene] | PlanFile, overlap_pixels: float) -> None:
        self._overlap = overlap_pixels
        self._said_two_views = False
        self._shrunk: dict[Land, BaseGeometry] = {}
        self._known: dict[int, Place] = {}
        self._places = PlaceIndex()
        planned = isinstance(scenes, PlanFile)
        for places in places_of_plan(scenes) if planned else places_of_scenes(scenes):
            self._places.add(places)
        self._places.pack()

    def close(self) -> None:
        """Remove the temporary database."""
        self._places.close()

    def foreign(self, scene: Scene) -> BaseGeometry | None:
        """The part of a scene that belongs to others, in EPSG:4326; None if all is its own."""
        [(_, foreign)] = self.limits([scene])
        return foreign

    def limits(self, scenes: Iterable[Scene]) -> Iterator[tuple[Scene, BaseGeometry | None]]:
        """Yield scenes, each with what `foreign` says of it, worked out for some of them together."""
        some: list[tuple[Scene, Crowd | None]] = []
        size = 0
        for scene in scenes:
            crowd = self._crowd(scene)
            some.append((scene, crowd))
            size += 1 if crowd is None else len(crowd.others)
            if size >= _TOGETHER:
                yield from self._settled(some)
                some, size = [], 0
        yield from self._settled(some)

    def _settled(
        self, some: Sequence[tuple[Scene, Crowd | None]]
    ) -> Iterator[tuple[Scene, BaseGeometry | None]]:
        foreign = iter(self._foreign([crowd for _, crowd in some if crowd is not None]))
        for scene, crowd in some:
            yield scene, None if crowd is None else next(foreign)

    def _crowd(self, scene: Scene) -> Crowd | None:
        own = place_of(scene)
        if own is None:
            return None
        others = [other for other in self._near(own) if not self._two_views(own, other)]
        return Crowd(own, others) if others else None

    def _foreign(self, crowds: Sequence[Crowd]) -> list[BaseGeometry | None]:
        # Each step for all before the next: one call of GEOS, or many while its code is in the cache.
        inner = iter(self._inner([place for own, others in crowds for place in (own, *others)]))
        claims: list[BaseGeometry] = []
        cores: list[BaseGeometry] = []
        wins: list[BaseGeometry | None] = []
        for own, others in crowds:
            core = next(inner)
            for other in others:
                theirs = next(inner)
                better = other.outranks(own)
                wins.append(theirs if better else None)
                claims.append(other.footprint if better else theirs)
                cores.append(core)
        rest = shapely.difference(np.array(claims, object), np.array(cores, object)).tolist()
        parts = zip(wins, rest, strict=True)
        taken = [
            shapely.union_all([part for pair in islice(parts, len(others)) for part in pair])
            for _, others in crowds
        ]
        reach = shapely.buffer(np.array([own.footprint for own, _ in crowds], object), 1e-4)
        foreign = shapely.intersection(np.array(taken, object), reach)
        none = (shapely.area(foreign) == 0).tolist()
        return [None if no else shape for shape, no in zip(foreign.tolist(), none, strict=True)]

    def _near(self, own: Place) -> list[Place]:
        """Scenes that touch a scene's footprint, in the order in which they were given."""
        numbers = self._places.near(own.footprint.bounds)
        places = [place for place in self._at(numbers) if place.id != own.id]
        if not places:
            return places
        shapely.prepare(own.footprint)
        touching = shapely.intersects(own.footprint, [place.footprint for place in places])
        return list(compress(places, touching.tolist()))

    def _at(self, numbers: list[int]) -> list[Place]:
        """Scenes by their numbers. Those of a neighbourhood are asked for again and again."""
        missing = [number for number in numbers if number not in self._known]
        rows = [self._places.row(number) for number in missing]
        footprints = shapely.from_wkb(np.array([row[-1] for row in rows], object)).tolist()
        for number, row, footprint in zip(missing, rows, footprints, strict=True):
            self._known[number] = Place._make((*row, footprint))
        return _lately(self._known, numbers)

    def _two_views(self, a: Place, b: Place) -> bool:
        if a.time is not None or b.time is not None:
            return False
        smaller = min(a.footprint.area, b.footprint.area)
        if shapely.intersection(a.footprint, b.footprint).area < SAME_GROUND * smaller:
            return False
        if not self._said_two_views:
            self._said_two_views = True
            log.warning(
                "%s and %s show the same ground and have no dates: both are kept whole, and so are any "
                "others like them",
                a.id,
                b.id,
            )
        return True

    def _inner(self, places: Sequence[Place]) -> list[BaseGeometry]:
        """The footprints of scenes without their borders."""
        lands = [place.land for place in places]
        known = self._shrunk
        missing = {
            land: place for land, place in zip(lands, places, strict=True) if land not in known
        }
        inner = inner_footprints(list(missing.values()), self._overlap)
        known.update(zip(missing, inner, strict=True))
        return _lately(known, lands)


def _lately(known: dict[K, V], keys: Sequence[K]) -> list[V]:
    """Return values that are all known, and forget those that were not asked for longest."""
    found = [known[key] for key in keys]
    for key in keys:
        known[key] = known.pop(key)  # the ones used last stand last
    while len(known) > _LATELY:
        del known[next(iter(known))]
    return found
