"""Detections to rows: the output's columns, with geometry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely

from ..catalog._hilbert import hilbert_distances
from ._geo import box_areas_m2
from ._outlines import fixed_width, outlines_of
from .geofile import EDGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .collect import SceneDetections
    from .scene_reader import SceneHeader

ROW_GROUP_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class CropColumns:
    """A crop model's columns: `name` is their prefix, `labels` its classes by index."""

    name: str
    labels: tuple[str, ...]
    scores: bool = False


@dataclass(frozen=True, slots=True)
class RowSchema:
    """What a job's rows look like.

    Parameters
    ----------
    labels
        The detector's label names by index.
    model
        Name and version of the detector, ``name@version``; the version is part of each `detection_id`.
    crops
        Columns of each crop model, in the job's order.
    crs
        Output CRS; None for pixel coordinates.
    """

    labels: tuple[str, ...]
    model: str
    crops: tuple[CropColumns, ...]
    crs: str | None

    @property
    def model_version(self) -> str:
        """The detector's version alone: the same weights may lie elsewhere on the next machine."""
        return self.model.rpartition("@")[2]

    @property
    def arrow(self) -> pa.Schema:
        """The exact columns, in order, with GeoParquet metadata."""
        crops: list[pa.Field] = []
        for crop in self.crops:
            crops.append(pa.field(f"{crop.name}_label", pa.string()))
            crops.append(pa.field(f"{crop.name}_score", pa.float32()))
            if crop.scores:
                crops.append(pa.field(f"{crop.name}_scores", pa.list_(pa.float32())))
        corner = [pa.field(name, pa.float32()) for name in EDGES]
        bbox = pa.struct([pa.field(f.name, pa.float64()) for f in corner])
        return pa.schema(
            [
                pa.field("detection_id", pa.string()),
                pa.field("scene_id", pa.string()),
                pa.field("image_path", pa.string()),
                pa.field("datetime", pa.timestamp("us", tz="UTC")),
                *corner,
                pa.field("label", pa.string()),
                pa.field("score", pa.float32()),
                *crops,
                pa.field("area_m2", pa.float32()),
                pa.field("geometry", pa.binary()),
                pa.field("bbox", bbox),
            ],
        )

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Values of the columns that have few."""
        return {"label": self.labels} | {f"{crop.name}_label": crop.labels for crop in self.crops}

    def describe(self) -> list[tuple[str, str, str]]:
        """Name, type and meaning of each column."""
        meanings = dict(_MEANINGS)
        for crop in self.crops:
            meanings[f"{crop.name}_label"] = (
                "likeliest class of the crop; null without pixels of it"
            )
            meanings[f"{crop.name}_score"] = "its probability"
            meanings[f"{crop.name}_scores"] = f"probabilities of {', '.join(crop.labels)}"
        return [(f.name, str(f.type), meanings[f.name]) for f in self.arrow]


_PIXELS = "pixels of the source raster, origin top left"
_MEANINGS = {
    "detection_id": "hash of scene, model and box: the same detection has the same id in every run",
    "scene_id": "id of the scene's item in this collection",
    "image_path": "where the pixels came from",
    "datetime": "acquisition time of the scene, UTC",
    "xmin": f"left edge, {_PIXELS}",
    "ymin": f"upper edge, {_PIXELS}",
    "xmax": f"right edge, {_PIXELS}",
    "ymax": f"lower edge, {_PIXELS}",
    "label": "class that the detector gave",
    "score": "the detector's confidence, 0 to 1",
    "area_m2": "ground area of the box in square metres",
    "geometry": "the box in the output CRS",
    "bbox": "bounds of the geometry; all longitudes for one in two parts at the antimeridian",
}


class SceneRows:
    """A scene's rows in Hilbert order, made some at a time; a row takes about 120 bytes until then.

    Polygons are the boxes' four corners put through the raster's transform, then into the output
    CRS; rotated rasters give rotated polygons.

    Parameters
    ----------
    detections, header, schema
        What was found in the scene, its georeferencing, and the columns.
    scene_id, image_path, time
        The same for all rows.

    Raises
    ------
    ValueError
        If the schema has a CRS and the raster has none.
    """

    def __init__(
        self,
        detections: SceneDetections,
        header: SceneHeader,
        schema: RowSchema,
        *,
        scene_id: str,
        image_path: str,
        time: datetime | None,
    ) -> None:
        self._found = detections
        self._header = header
        self._of_schema = schema
        self._same = {"scene_id": scene_id, "image_path": image_path, "datetime": time}
        self._stem = hashlib.blake2b(
            f"{scene_id}\x1f{schema.model_version}".encode(), digest_size=12
        )
        self._outlines = outlines_of(detections.boxes, header.transform, header.crs, schema.crs)
        self._boxes = self._outlines.bounds()
        self.schema = schema.arrow
        self._order = self._hilbert_order()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def bounds(self) -> list[float] | None:
        """xmin, ymin, xmax, ymax of all geometries; None without rows."""
        if not len(self):
            return None
        return [*self._boxes[:, :2].min(axis=0), *self._boxes[:, 2:].max(axis=0)]

    def groups(self) -> Iterator[pa.Table]:
        """Yield the rows, in groups of at most `ROW_GROUP_ROWS`."""
        for start in range(0, len(self), ROW_GROUP_ROWS):
            yield self._group(self._order[start : start + ROW_GROUP_ROWS])

    def table(self) -> pa.Table:
        """All rows as one table."""
        if not len(self):
            return self.schema.empty_table()
        return pa.concat_tables(self.groups())

    def _group(self, which: NDArray[np.int64]) -> pa.Table:
        found, header, types = self._found, self._header, self.schema
        boxes, labels = found.boxes[which], found.labels[which]
        columns: dict[str, Any] = {
            name: pa.repeat(pa.scalar(value, types.field(name).type), len(which))
            for name, value in self._same.items()
        }
        columns |= {
            "detection_id": fixed_width(pa.string(), b"".join(self._ids(which)), 24),
            **{name: boxes[:, i] for i, name in enumerate(EDGES)},
            "label": pa.array(self._of_schema.labels, pa.string()).take(pa.array(labels)),
            "score": found.scores[which],
            "area_m2": pa.nulls(len(which), pa.float32()),
            "geometry": self._outlines.wkb(which),
            "bbox": pa.StructArray.from_arrays(
                list(self._boxes[which].T.copy()), fields=list(types.field("bbox").type)
            ),
        }
        if header.transform is not None and header.crs is not None:
            columns["area_m2"] = box_areas_m2(boxes, header.transform, header.size, header.crs)
        for crop in self._of_schema.crops:
            columns |= _class_columns(crop, found.classes[crop.name][which])
        return pa.table([pa.array(columns[f.name], f.type) for f in types], schema=types)

    def _ids(self, which: NDArray[np.int64]) -> Iterator[bytes]:
        boxes, labels = self._found.boxes[which], self._found.labels[which]
        parts = np.empty(len(which), [("box", "<f4", 4), ("label", "<i8")])
        parts["box"], parts["label"] = boxes, labels
        data, width = parts.tobytes(), parts.itemsize
        for start in range(0, len(data), width):
            one = self._stem.copy()
            one.update(data[start : start + width])
            yield one.hexdigest().encode()

    def _hilbert_order(self) -> NDArray[np.int64]:
        """Row numbers along a Hilbert curve around all rows; of rows in one place, by their ids."""
        middles = (self._boxes[:, :2] + self._boxes[:, 2:]) / 2
        if len(middles) < 2:
            return np.arange(len(middles))
        distance = hilbert_distances(middles, (*middles.min(axis=0), *middles.max(axis=0)))
        order = np.argsort(distance, kind="stable")
        again = np.diff(distance[order]) == 0
        tied = np.append(again, False) | np.append(False, again)
        rows = order[tied]
        order[tied] = rows[np.lexsort((np.array(list(self._ids(rows))), distance[rows]))]
        return order


def _class_columns(crop: CropColumns, probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """A crop model's columns; null where the crop has no pixel of data, so that there is no class."""
    count, classes = probabilities.shape
    unknown = ~np.isfinite(probabilities.sum(axis=1))
    best = probabilities.argmax(axis=1) if count else np.zeros(0, np.int64)
    score = probabilities[np.arange(count), best]
    columns: dict[str, Any] = {
        f"{crop.name}_label": pa.array(crop.labels, pa.string()).take(pa.array(best, mask=unknown)),
        f"{crop.name}_score": pa.array(score, pa.float32(), mask=unknown),
    }
    if crop.scores:
        ends = np.cumsum(np.where(unknown, 0, classes), dtype=np.int32)
        columns[f"{crop.name}_scores"] = pa.ListArray.from_arrays(
            np.concatenate([np.zeros(1, np.int32), ends]),
            pa.array(probabilities[~unknown].ravel(), pa.float32()),
            mask=pa.array(unknown),
        )
    return columns


def to_geodataframe(table: pa.Table, crs: str | None) -> gpd.GeoDataFrame:
    """Rows as a frame, without the `bbox` column, which only serves files."""
    plain = [name for name in table.column_names if name not in ("bbox", "geometry")]
    frame = table.select(plain).to_pandas()
    geometry = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    return gpd.GeoDataFrame(frame, geometry=geometry, crs=crs)
