"""Detections to rows: the output's columns, with geometry, and GeoParquet files of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS

from ._antimeridian import LONLAT, mend, torn
from ._geo import box_areas_m2, to_map, transformer

if TYPE_CHECKING:
    from affine import Affine
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
        corner = [pa.field(name, pa.float32()) for name in ("xmin", "ymin", "xmax", "ymax")]
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


def _class_columns(crop: CropColumns, probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """A crop model's columns; null where the crop has no pixel of data, so that there is no class."""
    count = len(probabilities)
    known = np.isfinite(probabilities.sum(axis=1))
    best = probabilities.argmax(axis=1) if count else np.zeros(0, np.int64)
    labels = np.array(crop.labels, dtype=object)[best]
    columns: dict[str, Any] = {
        f"{crop.name}_label": pa.array(labels, pa.string(), mask=~known),
        f"{crop.name}_score": pa.array(
            probabilities[np.arange(count), best], pa.float32(), mask=~known
        ),
    }
    if crop.scores:
        rows = zip(probabilities, known, strict=True)
        columns[f"{crop.name}_scores"] = [row if there else None for row, there in rows]
    return columns


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


def build_table(
    detections: SceneDetections,
    header: SceneHeader,
    schema: RowSchema,
    *,
    scene_id: str,
    image_path: str,
    time: datetime | None,
) -> pa.Table:
    """Turn a scene's detections into rows, in Hilbert order.

    Polygons are the boxes' four corners put through the raster's transform, then into the output
    CRS; rotated rasters give rotated polygons.

    Raises
    ------
    ValueError
        If the schema has a CRS and the raster has none.
    """
    count = len(detections.scores)
    boxes = detections.boxes
    polygons = box_polygons(boxes, header.transform, header.crs, schema.crs)
    ids = _detection_ids(scene_id, schema.model_version, boxes, detections.labels)
    label_names = np.array(schema.labels, dtype=object)
    columns: dict[str, Any] = {
        "detection_id": ids,
        "scene_id": [scene_id] * count,
        "image_path": [image_path] * count,
        "datetime": [time] * count,
        "xmin": boxes[:, 0],
        "ymin": boxes[:, 1],
        "xmax": boxes[:, 2],
        "ymax": boxes[:, 3],
        "label": label_names[detections.labels],
        "score": detections.scores,
        "area_m2": _areas(boxes, header, count),
        "geometry": shapely.to_wkb(polygons),
    }
    for crop in schema.crops:
        columns |= _class_columns(crop, detections.classes[crop.name])
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    arrow = schema.arrow
    columns["bbox"] = pa.StructArray.from_arrays(
        [pa.array(bounds[:, i], pa.float64()) for i in range(4)],
        fields=list(arrow.field("bbox").type),
    )
    arrays = [
        columns[f.name]
        if isinstance(columns[f.name], pa.Array)
        else pa.array(columns[f.name], f.type)
        for f in arrow
    ]
    table = pa.Table.from_arrays(arrays, schema=arrow)
    return table.take(pa.array(_hilbert_order(polygons, ids)))


def box_polygons(
    boxes: NDArray[np.floating], transform: Affine | None, crs: str | None, target: str | None
) -> NDArray[np.object_]:
    """Polygons (N,) of pixel boxes (N, 4) in the target CRS, counter-clockwise when north is up.

    With `target` None they stay in pixel coordinates. A box across the antimeridian is a multipolygon
    of two parts, as RFC 7946 wants it.
    """
    edges = boxes.astype(np.float64)
    corners = edges[:, [[0, 3], [2, 3], [2, 1], [0, 1]]]
    x, y = corners[..., 0], corners[..., 1]
    if target is None:
        return np.asarray(shapely.polygons(np.stack([x, y], axis=-1)))
    if transform is None or crs is None:
        raise ValueError("the raster has no georeferencing")
    x, y = to_map(transform, x, y)
    there, wanted = (x, y), CRS.from_user_input(target)
    if not CRS.from_user_input(crs).equals(wanted):
        x, y = transformer(crs, target).transform(x, y)
    polygons = np.asarray(shapely.polygons(np.stack([x, y], axis=-1)))
    if torn(x, wanted).any():
        lonlat = None if wanted.is_geographic else transformer(crs, LONLAT).transform(*there)
        mend(polygons, x, y, lonlat, wanted)
    return polygons


def _areas(boxes: NDArray[np.float32], header: SceneHeader, count: int) -> Any:
    if header.transform is None or header.crs is None:
        return [None] * count
    return box_areas_m2(boxes, header.transform, header.size, header.crs)


def _detection_ids(
    scene_id: str, model: str, boxes: NDArray[np.float32], labels: NDArray[np.int64]
) -> list[str]:
    stem = hashlib.blake2b(f"{scene_id}\x1f{model}".encode(), digest_size=12)
    ids: list[str] = []
    for box, label in zip(boxes.astype("<f4"), labels.astype("<i8"), strict=True):
        one = stem.copy()
        one.update(box.tobytes() + label.tobytes())
        ids.append(one.hexdigest())
    return ids


def _hilbert_order(polygons: NDArray[np.object_], ids: Sequence[str]) -> NDArray[np.int64]:
    if len(ids) < 2:
        return np.arange(len(ids))
    distance = gpd.GeoSeries(polygons).hilbert_distance().to_numpy()
    return np.lexsort((np.array(ids), distance))


def write_geoparquet(table: pa.Table, path: Path, crs: str | None) -> None:
    """Write rows as GeoParquet 1.1: zstd, bbox covering, row groups of `ROW_GROUP_ROWS`."""
    bounds = None
    if table.num_rows:
        bounds = shapely.total_bounds(shapely.from_wkb(table["geometry"].to_numpy()))
    table = table.replace_schema_metadata(geo_metadata(bounds, crs))
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def geo_metadata(bounds: Iterable[float] | None, crs: str | None) -> dict[bytes, bytes]:
    """GeoParquet's metadata for rows within `bounds` (xmin, ymin, xmax, ymax); None without rows."""
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [] if bounds is None else _geometry_types(bounds, crs),
        "crs": None if crs is None else CRS.from_user_input(crs).to_json_dict(),
        "covering": {"bbox": {c: ["bbox", c] for c in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if bounds is not None:
        geometry["bbox"] = [float(value) for value in bounds]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return {b"geo": json.dumps(geo).encode()}


def _geometry_types(bounds: Iterable[float], crs: str | None) -> list[str]:
    """Boxes are polygons; if they lie all over the world, some may be cut at the antimeridian."""
    west, _, east, _ = bounds
    wide = crs is not None and torn(np.array([[west, east]]), CRS.from_user_input(crs)).any()
    return ["MultiPolygon", "Polygon"] if wide else ["Polygon"]


def to_geodataframe(table: pa.Table, crs: str | None) -> gpd.GeoDataFrame:
    """Rows as a frame, without the `bbox` column, which only serves files."""
    plain = [name for name in table.column_names if name not in ("bbox", "geometry")]
    frame = table.select(plain).to_pandas()
    geometry = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    return gpd.GeoDataFrame(frame, geometry=geometry, crs=crs)
