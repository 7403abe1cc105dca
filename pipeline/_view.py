"""What the map page and the quicklook show of an output: scenes, detections and totals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
import shapely.affinity
from pyproj import CRS, Transformer

from ..catalog import Records
from ..catalog.hrefs import public_href
from ..catalog.sharedfiles import member_of
from ._imagery import Preview, read_preview
from .outputs import crs_of_rows, open_files, open_output
from .rows import to_geodataframe

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..catalog import SceneRecord

_MERCATOR = "EPSG:3857"


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
        Where the scene is made of rasters of one band each: their hrefs by the band's name.
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
    bands: Mapping[str, str] = field(default_factory=dict)


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
    notes
        What is not shown, and why; one sentence each.
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
    notes: list[str] = field(default_factory=list)

    def preview(self, scene: SceneView, side: int) -> Preview:
        """A scene's imagery as the job saw it, at most `side` pixels wide or high.

        Raises
        ------
        RasterError
            If it can't be read.
        """
        return read_preview(
            scene.href,
            side,
            bands=self.bands,
            rescale=self.rescale,
            georeferenced=self.georeferenced,
            parts=scene.bands,
        )


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
    gatherer = _Gatherer(max_detections)
    crs = crs_of_rows(collection)
    georeferenced = crs is not None
    if georeferenced:
        for scene, record in zip(scenes, records, strict=True):
            scene.outline = _to_mercator(record.scene.footprint)
    else:
        _lay_side_by_side(scenes, records)
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
        notes=gatherer.notes,
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
        bands={name: public_href(part.href) for name, part in record.scene.bands.items()},
    )


def _to_mercator(footprint: BaseGeometry | None) -> BaseGeometry | None:
    if footprint is None or footprint.is_empty:
        return None
    to_mercator = Transformer.from_crs("EPSG:4326", _MERCATOR, always_xy=True)
    # The poles are infinitely far away in this projection.
    clipped = shapely.intersection(footprint, shapely.box(-180, -85.05, 180, 85.05))
    if clipped.is_empty:
        return None
    return shapely.transform(
        clipped, lambda xy: np.column_stack(to_mercator.transform(xy[:, 0], xy[:, 1]))
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

    def __init__(self, limit: int) -> None:
        self._limit = limit
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
        if not CRS.from_user_input(frame.crs).equals(CRS.from_user_input(_MERCATOR)):
            placed = frame.to_crs(_MERCATOR)
        finite = np.isfinite(shapely.bounds(placed.geometry.to_numpy())).all(axis=1)
        lost = int(len(placed) - finite.sum())
        if lost:
            self.unplaced += lost
            self.notes.append(f"{lost:,} detections of {scene.id} have no place in web mercator.")
        return placed[finite].set_crs(None, allow_override=True)

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
