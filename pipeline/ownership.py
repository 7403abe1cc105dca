"""Which scene each ground point belongs to, where scenes overlap.

Scenes are ranked, by default the latest first. A point belongs to the best-ranked scene that holds it
away from its border, or, where every scene has its border there, to the best-ranked that holds it at
all. "Away from the border" means by the overlap of the windows: an object up to twice that wide whose
centre a scene owns is not cut off by that scene's edge, the same promise that window cores give.

Two scenes without dates of which one covers the other are taken for two views of the same ground, not
for neighbours: neither is the latest, and to drop a raster whole that a user named would surprise. Both
keep everything, and the log says so.

Footprints lie in an R*Tree of a temporary SQLite database, so that memory does not grow with the number
of scenes, and the first scene's neighbours are known as soon as the last footprint is in.

What a scene does *not* own is kept, rather than what it does: so nothing is lost to rounding along a
scene's outer border, where nobody else could claim it.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING

import shapely
from affine import Affine
from shapely.affinity import affine_transform

from ..catalog._scratch import Scratch
from ..catalog.errors import JobError
from ..catalog.lonlat import crosses
from ..catalog.planfile import PlanFile
from ._antimeridian import METRES_PER_DEGREE, shrunk
from ._geo import ground_sample_distance
from ._places import GRID, Place, place_of, rows_of_plan, rows_of_scenes

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..catalog import Scene

log = logging.getLogger("geosweep")

SAME_GROUND = 0.9
"""Share of the smaller of two undated scenes that the other covers, from which they are two views."""

_TABLE = """CREATE VIRTUAL TABLE place USING rtree(
    number, west, east, south, north, +id, +time, +updated, +grid, +crs, +footprint
)"""
_NEAR = """SELECT number, id, time, updated, grid, crs, footprint FROM place
    WHERE west <= ? AND east >= ? AND south <= ? AND north >= ?"""
_SHRUNK = 1024


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
        _check_sqlite()
        self._overlap = overlap_pixels
        self._said_two_views = False
        self._shrunk = lru_cache(_SHRUNK)(self._shrink)
        self._places = Scratch(_TABLE)
        marks = ",".join("?" * 11)
        rows = rows_of_plan(scenes) if isinstance(scenes, PlanFile) else rows_of_scenes(scenes)
        self._places.fill(f"INSERT INTO place VALUES ({marks})", rows)

    def close(self) -> None:
        """Remove the temporary database."""
        self._places.close()

    def foreign(self, scene: Scene) -> BaseGeometry | None:
        """The part of a scene that belongs to others, in EPSG:4326; None if all is its own."""
        own = place_of(scene)
        if own is None:
            return None
        neighbours = [other for other in self._near(own) if not self._two_views(own, other)]
        if not neighbours:
            return None
        inner = self._inner(own)
        parts: list[BaseGeometry] = []
        for other in neighbours:
            if other.rank < own.rank:
                parts.append(self._inner(other))
                parts.append(shapely.difference(other.footprint, inner))
            else:
                parts.append(shapely.difference(self._inner(other), inner))
        foreign = shapely.intersection(
            shapely.union_all(parts), shapely.buffer(own.footprint, 1e-4)
        )
        return None if shapely.area(foreign) == 0 else foreign

    def _near(self, own: Place) -> Iterator[Place]:
        """Scenes that touch a scene's footprint, in the order in which they were given."""
        west, south, east, north = own.footprint.bounds
        # The tree keeps 32 bits of a coordinate, rounded outwards: it may only find too many.
        found = sorted(self._places.execute(_NEAR, (east, west, north, south)))
        shapely.prepare(own.footprint)
        for _, name, time, updated, grid, crs, footprint in found:
            other = Place(name, time, updated, grid, crs, shapely.from_wkb(footprint))
            if other.id != own.id and shapely.intersects(own.footprint, other.footprint):
                yield other

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

    def _inner(self, place: Place) -> BaseGeometry:
        """A scene's footprint without its border."""
        if place.grid is None or place.crs is None:
            return place.footprint
        return self._shrunk(place.grid, place.crs, place.footprint)

    def _shrink(self, grid: bytes, crs: str, footprint: BaseGeometry) -> BaseGeometry:
        *transform, height, width = GRID.unpack(grid)
        gsd = ground_sample_distance(Affine(*transform), (width, height), crs)
        border = self._overlap * gsd / METRES_PER_DEGREE
        if crosses(footprint):
            return shrunk(footprint, border)
        # Degrees of longitude are shorter than those of latitude: shrink in a local frame.
        stretch = max(math.cos(math.radians(footprint.centroid.y)), 1e-3)
        local = affine_transform(footprint, [stretch, 0, 0, 1, 0, 0])
        inner = local.buffer(-border, join_style="mitre")
        return affine_transform(inner, [1 / stretch, 0, 0, 1, 0, 0])


def _check_sqlite() -> None:
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE VIRTUAL TABLE test USING rtree(id, low, high)")
    except sqlite3.OperationalError as error:
        raise JobError(
            f"The SQLite {sqlite3.sqlite_version} of this Python has no R*Tree ({error}), by which "
            "overlapping scenes are found; use a Python whose SQLite has it, such as Debian's or "
            "conda's, or set merge.scenes to none."
        ) from None
