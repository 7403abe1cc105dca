"""What the map page and the quicklook show of an output: scenes, detections and totals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
import shapely.affinity
from pyproj import CRS

from ..catalog import Access, Records, SideAsset
from ..catalog.hrefs import public_href
from ..catalog.sharedfiles import member_of
from ..catalog.signing import PLANETARY_COMPUTER
from ._imagery import Preview, read_preview
from ._mercator import HALF_WORLD, WEB_MERCATOR, mercator_outlines, whole_boxes
from .datafiles import open_files
from .outputs import crs_of_rows, open_output
from .rows import to_geodataframe

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..catalog import SceneRecord


@dataclass(slots=True)
class SceneView:
    """A scene as it is shown.

    Parameters
    ----------
    id, status, href, error, windows, rows
        From its commit record; `href` without credentials.
    outline
        In the view's coordinates; None where unknown.
    shift
        Added to the scene's coordinates; other than zero only in a view without georeferencing.
    shape
        (height, width) in pixels, where recorded.
    bands
        Where the scene is made of rasters of one band each: those, by the band's name.
    access
        How the bucket of `href` wants to be asked.
    """

    id: str
    status: str
    href: str
    error: str | None
    windows: int
    rows: int
    outline: BaseGeometry | None = None
    shift: tuple[float, float] = (0.0, 0.0)
    shape: tuple[int, int] | None = None
    bands: Mapping[str, SideAsset] = field(default_factory=dict)
    access: Access = field(default_factory=Access)


@dataclass(slots=True)
class View:
    """An output, ready to be drawn.

    Parameters
    ----------
    name
        Of the job.
    georeferenced
        Coordinates are web mercator; otherwise pixels with y upwards, scenes side by side.
    scenes
        All scenes with a commit record, by id.
    frame
        The detections that are drawn, by rising score, geometry in the view's coordinates.
    total
        How many detections the output has; more than `frame` if they were too many to draw.
    categories
        Text columns to colour and filter by: `label` and those of the crop models.
    totals
        For each category, detections by value over the whole output, most frequent first.
    bands, rescale
        From the job, to show the imagery as the detector saw it.
    sign
        How the imagery is signed, where that needs no code of the job's own.
    notes
        What is not shown, and why; one sentence each.
    across
        Whether web mercator begins at Greenwich, and goes on beyond the antimeridian: for outputs that
        lie across it.
    """

    name: str
    georeferenced: bool
    scenes: list[SceneView]
    frame: gpd.GeoDataFrame
    total: int
    categories: tuple[str, ...]
    totals: dict[str, dict[str | None, int]]
    bands: list[int | str] | None = None
    rescale: list[tuple[float, float]] | None = None
    sign: str | None = None
    notes: list[str] = field(default_factory=list)
    across: bool = False

    def preview(self, scene: SceneView, side: int) -> Preview:
        """A scene's imagery as the job saw it, at most `side` pixels wide or high.

        Raises
        ------
        RasterError
            If it can't be read.
        """
        picture = read_preview(
            scene.href,
            side,
            bands=self.bands,
            rescale=self.rescale,
            georeferenced=self.georeferenced,
            parts=scene.bands,
            access=scene.access,
            sign=self.sign,
        )
        left, bottom, right, top = picture.bounds
        if self.across and left < 0:
            world = 2 * HALF_WORLD
            picture = replace(picture, bounds=(left + world, bottom, right + world, top))
        return picture


def read_view(output: str | Path, *, max_detections: int) -> View:
    """Read an output by its commit records; files that no record points to don't count.

    Raises
    ------
    OutputError
        If `output` is no output of geosweep, or a recorded data file can't be read.
    """
    storage, collection = open_output(output)
    job = collection.get("geosweep:job") or {}
    records = sorted(Records(storage).all(), key=lambda record: record.scene.id)
    scenes = [_scene_view(record) for record in records]
    crs = crs_of_rows(collection)
    georeferenced, across = crs is not None, False
    if georeferenced:
        outlines, across = mercator_outlines([record.scene.footprint for record in records])
        for scene, outline in zip(scenes, outlines, strict=True):
            scene.outline = outline
    else:
        _lay_side_by_side(scenes, records)
    gatherer = _Gatherer(max_detections, across)
    by_id = {scene.id: scene for scene in scenes}
    for file in open_files(storage, filter(None, map(member_of, records)), empty=True):
        columns = [name for name in file.names if _looked_at(name)]
        gatherer.expect(columns)
        for batch in file.batches(columns):
            frame = to_geodataframe(pa.Table.from_batches([batch]), crs)
            for name, rows in frame.groupby("scene_id", sort=False):
                gatherer.add(gpd.GeoDataFrame(rows), by_id[str(name)])
    source = job.get("source") or {}
    view = View(
        name=str(collection.get("id") or job.get("name") or "geosweep"),
        georeferenced=georeferenced,
        scenes=scenes,
        frame=gatherer.frame(),
        total=gatherer.total,
        categories=gatherer.categories,
        totals=gatherer.sorted_totals(),
        bands=source.get("bands"),
        rescale=source.get("rescale"),
        # Any other names a function, and an output may be somebody else's.
        sign=PLANETARY_COMPUTER if source.get("sign") == PLANETARY_COMPUTER else None,
        notes=gatherer.notes,
        across=across,
    )
    if len(view.frame) + gatherer.unplaced < view.total:
        view.notes.insert(
            0,
            f"{len(view.frame):,} of {view.total:,} detections are shown: those with the highest scores.",
        )
    return view


def _looked_at(column: str) -> bool:
    return column != "bbox" and not column.endswith("_scores")


def _scene_view(record: SceneRecord) -> SceneView:
    return SceneView(
        id=record.scene.id,
        status=record.status,
        href=public_href(record.scene.href),
        error=record.error,
        windows=record.counts.get("windows", 0),
        rows=record.rows,
        shape=record.scene.shape,
        bands={
            name: replace(part, href=public_href(part.href))
            for name, part in record.scene.bands.items()
        },
        access=record.scene.access,
    )


def _lay_side_by_side(scenes: list[SceneView], records: list[SceneRecord]) -> None:
    """Give scenes without georeferencing a place each, in rows of a square."""
    shapes = [record.scene.shape for record in records]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return
    pitch_y, pitch_x = (max(side) * 1.05 for side in zip(*known, strict=True))
    across = math.ceil(math.sqrt(len(known)))
    place = 0
    for scene, shape in zip(scenes, shapes, strict=True):
        if shape is None:
            continue
        scene.shift = (place % across * pitch_x, -(place // across) * pitch_y)
        height, width = shape
        dx, dy = scene.shift
        scene.outline = shapely.box(dx, dy - height, dx + width, dy)
        place += 1


class _Gatherer:
    """Collects detections of one scene after the other, and never keeps many more than may be drawn."""

    def __init__(self, limit: int, across: bool) -> None:
        self._limit = limit
        self._across = across
        self._frames: list[gpd.GeoDataFrame] = []
        self._held = 0
        self._totals: dict[str, Counter[str | None]] = {}
        self.total = 0
        self.unplaced = 0
        self.notes: list[str] = []

    def expect(self, columns: list[str]) -> None:
        """Take note of a file's columns: there are categories without detections, too."""
        for column in columns:
            if column == "label" or column.endswith("_label"):
                self._totals.setdefault(column, Counter())

    def add(self, frame: gpd.GeoDataFrame, scene: SceneView) -> None:
        self.total += len(frame)
        for column, counts in self._totals.items():
            if column in frame:
                values = frame[column].astype(object).where(frame[column].notna(), None)
                counts.update(values.to_list())
        placed = self._place(frame, scene)
        self._frames.append(placed)
        self._held += len(placed)
        if self._held > 2 * self._limit:
            self._frames = [self.frame()]
            self._held = len(self._frames[0])

    def _place(self, frame: gpd.GeoDataFrame, scene: SceneView) -> gpd.GeoDataFrame:
        if frame.crs is None:
            dx, dy = scene.shift
            moved = shapely.transform(
                frame.geometry.to_numpy(),
                lambda xy: np.column_stack([xy[:, 0] + dx, dy - xy[:, 1]]),
            )
            return frame.set_geometry(gpd.GeoSeries(moved, index=frame.index))
        placed = frame
        if not CRS.from_user_input(frame.crs).equals(CRS.from_user_input(WEB_MERCATOR)):
            placed = frame.to_crs(WEB_MERCATOR)
        finite = np.isfinite(shapely.bounds(placed.geometry.to_numpy())).all(axis=1)
        lost = int(len(placed) - finite.sum())
        if lost:
            self.unplaced += lost
            self.notes.append(f"{lost:,} detections of {scene.id} have no place in web mercator.")
        placed = placed[finite].set_crs(None, allow_override=True)
        boxes = whole_boxes(placed.geometry.to_numpy(), across=self._across)
        return placed.set_geometry(gpd.GeoSeries(boxes, index=placed.index))

    def frame(self) -> gpd.GeoDataFrame:
        """The best detections so far, by rising score so that the best are drawn last."""
        if not self._frames:
            return gpd.GeoDataFrame({"score": np.zeros(0, np.float32)}, geometry=[])
        both = pd.concat(self._frames, ignore_index=True)
        both = both.sort_values("score", kind="stable").tail(self._limit)
        return gpd.GeoDataFrame(both.reset_index(drop=True))

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(self._totals)

    def sorted_totals(self) -> dict[str, dict[str | None, int]]:
        return {column: dict(counts.most_common()) for column, counts in self._totals.items()}
