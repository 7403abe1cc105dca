"""Which scene each ground point belongs to, where scenes overlap.

Scenes are ranked, by default the latest first. A point belongs to the best-ranked scene that holds it
away from its border, or, where every scene has its border there, to the best-ranked that holds it at
all. "Away from the border" means by the overlap of the windows: an object up to twice that wide whose
centre a scene owns is not cut off by that scene's edge, the same promise that window cores give.

Two scenes without dates of which one covers the other are taken for two views of the same ground, not
for neighbours: neither is the latest, and to drop a raster whole that a user named would surprise. Both
keep everything, and the log says so.

What a scene does *not* own is kept, rather than what it does: so nothing is lost to rounding along a
scene's outer border, where nobody else could claim it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from shapely.affinity import affine_transform

from ._geo import ground_sample_distance

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..catalog import Scene

log = logging.getLogger("geosweep")

_METRES_PER_DEGREE = 111_320.0
SAME_GROUND = 0.9
"""Share of the smaller of two undated scenes that the other covers, from which they are two views."""


class Ownership:
    """Ownership of overlapping scenes by rank, computed from their footprints.

    Parameters
    ----------
    scenes
        All scenes of the source, whether they will be processed or not.
    overlap_pixels
        Shared pixels of neighbouring windows; times a scene's GSD, its border's width.
    """

    def __init__(self, scenes: Sequence[Scene], overlap_pixels: float) -> None:
        self._scenes = scenes
        self._overlap = overlap_pixels
        footprints = np.array([scene.footprint for scene in scenes], dtype=object)
        self._footprints = footprints
        self._tree = shapely.STRtree(footprints)
        self._place = {scene.id: number for number, scene in enumerate(scenes)}
        self._said_two_views = False
        ranked = sorted(range(len(scenes)), key=lambda number: _rank(scenes[number]))
        self._rank = {number: rank for rank, number in enumerate(ranked)}

    def foreign(self, scene: Scene) -> BaseGeometry | None:
        """The part of a scene that belongs to others, in EPSG:4326; None if all is its own."""
        if scene.footprint is None or scene.error is not None:
            return None
        own = self._place[scene.id]
        neighbours = [
            int(number)
            for number in self._tree.query(scene.footprint, predicate="intersects")
            if number != own
            and self._scenes[number].error is None
            and not self._two_views(own, int(number))
        ]
        if not neighbours:
            return None
        inner = self._inner(own)
        parts: list[BaseGeometry] = []
        for number in neighbours:
            if self._rank[number] < self._rank[own]:
                parts.append(self._inner(number))
                parts.append(shapely.difference(self._footprints[number], inner))
            else:
                parts.append(shapely.difference(self._inner(number), inner))
        foreign = shapely.intersection(
            shapely.union_all(parts), shapely.buffer(scene.footprint, 1e-4)
        )
        return None if shapely.area(foreign) == 0 else foreign

    def _two_views(self, a: int, b: int) -> bool:
        if self._scenes[a].datetime is not None or self._scenes[b].datetime is not None:
            return False
        one, other = self._footprints[a], self._footprints[b]
        smaller = min(one.area, other.area)
        if shapely.intersection(one, other).area < SAME_GROUND * smaller:
            return False
        if not self._said_two_views:
            self._said_two_views = True
            log.warning(
                "%s and %s show the same ground and have no dates: both are kept whole, and so are any "
                "others like them",
                self._scenes[a].id,
                self._scenes[b].id,
            )
        return True

    def _inner(self, number: int) -> BaseGeometry:
        """A scene's footprint without its border."""
        footprint, scene = self._footprints[number], self._scenes[number]
        if scene.transform is None or scene.shape is None or scene.crs is None:
            return footprint
        height, width = scene.shape
        gsd = ground_sample_distance(Affine(*scene.transform), (width, height), scene.crs)
        # Degrees of longitude are shorter than those of latitude: shrink in a local frame.
        stretch = max(math.cos(math.radians(footprint.centroid.y)), 1e-3)
        local = affine_transform(footprint, [stretch, 0, 0, 1, 0, 0])
        shrunk = local.buffer(-self._overlap * gsd / _METRES_PER_DEGREE, join_style="mitre")
        return affine_transform(shrunk, [1 / stretch, 0, 0, 1, 0, 0])


def _rank(scene: Scene) -> tuple[float, list[int], str]:
    """Sort key, best first: latest acquisition, then latest `updated`, then id."""
    time = -scene.datetime.timestamp() if scene.datetime is not None else math.inf
    updated = [-ord(character) for character in scene.updated or ""]
    return (time, [*updated, 1], scene.id)
