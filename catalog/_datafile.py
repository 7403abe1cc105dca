"""One data file of an output against what its item and the format promise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .header import outline
from .stacitems import multihash
from .storage import Storage

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from .records import SceneRecord

_FIRST = (
    ("detection_id", "string"),
    ("scene_id", "string"),
    ("image_path", "string"),
    ("datetime", "timestamp[us, tz=UTC]"),
    ("xmin", "float"),
    ("ymin", "float"),
    ("xmax", "float"),
    ("ymax", "float"),
    ("label", "string"),
    ("score", "float"),
)
_LAST = (
    ("area_m2", "float"),
    ("geometry", "binary"),
    ("bbox", "struct<xmin: double, ymin: double, xmax: double, ymax: double>"),
)
_BOX = ("xmin", "ymin", "xmax", "ymax")
_BATCH = 50_000
_TOLERANCE = 0.005
"""Share of a footprint's extent by which rows may lie outside: many providers draw four corners with
straight sides in degrees, which for a 110 km scene is 240 m off the grid."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What was found out about a data file.

    Attributes
    ----------
    geoparquet, columns
        What is wrong with its metadata and its schema; None if nothing is.
    places
        By scene, what is wrong with its rows' geometry; scenes of which nothing is are left out.
    counts
        Rows of each scene that was asked for.
    total
        Rows in all.
    size
        Bytes.
    ids
        Hashes of those scenes' detection ids, uint64 (N,).
    repeated
        How many of them repeat another.
    checksum
        SHA-256 of the file as a multihash, if it was asked for.
    """

    geoparquet: str | None
    columns: str | None
    places: dict[str, str]
    counts: dict[str, int]
    total: int
    size: int
    ids: NDArray[np.uint64]
    repeated: int
    checksum: str | None


def check_file(
    storage: Storage,
    key: str,
    records: Sequence[SceneRecord],
    listed: list[tuple[str, str]],
    *,
    digest: bool,
) -> FileCheck:
    """Read a data file, a batch in memory at a time.

    Parameters
    ----------
    storage
        Of the output.
    key
        Of the file.
    records
        Of the scenes whose rows in it count.
    listed
        (name, type) of the columns that the collection lists.
    digest
        Whether the file's checksum is worked out.

    Raises
    ------
    OSError, ValueError
        If the file is missing, or is not parquet (pyarrow's errors are both).
    """
    import numpy as np
    import pyarrow.parquet as pq

    path = storage.local_path(key)
    data = None if path is not None else storage.get(key)
    size = len(data) if data is not None else path.stat().st_size  # type: ignore[union-attr]
    checksum = multihash(path if data is None else data) if digest else None  # type: ignore[arg-type]
    with pq.ParquetFile(path if data is None else BytesIO(data)) as file:
        schema = file.schema_arrow
        columns = _columns_fault(schema, listed)
        geoparquet, crs = _geo_fault(file)
        ids = [np.zeros(0, np.uint64)]
        scenes = {record.scene.id: _SceneRows(record, crs) for record in records}
        total = file.metadata.num_rows
        if {"detection_id", "scene_id", "geometry"} <= set(schema.names):
            for scene_id, rows in _rows_by_scene(file):
                if scene_id in scenes:
                    ids.append(_hashes(rows.column("detection_id")))
                    scenes[scene_id].look_at(rows.column("geometry"), place=geoparquet is None)
        else:
            total = 0  # whose they are can't be said
    hashes = np.concatenate(ids)
    return FileCheck(
        geoparquet,
        columns,
        {name: fault for name, scene in scenes.items() if (fault := scene.fault)},
        {name: scene.count for name, scene in scenes.items()},
        total,
        size,
        hashes,
        len(hashes) - len(np.unique(hashes)),
        checksum,
    )


class _SceneRows:
    """What the rows of one scene look like."""

    def __init__(self, record: SceneRecord, crs: Any) -> None:
        self._record = record
        self._crs = crs
        self._placed, self._area = False, None
        self.count = self._outside = self._empty = 0

    def look_at(self, column: pa.Array, *, place: bool) -> None:
        """Count some rows by their WKB; with `place`, also those outside the scene's footprint."""
        import shapely

        shapes = shapely.from_wkb(column.to_numpy(zero_copy_only=False), on_invalid="ignore")
        self.count += len(shapes)
        self._empty += int((~shapely.is_geometry(shapes)).sum())
        if place and not self._placed:
            self._placed, self._area = True, _area(self._record, self._crs)
        self._outside += 0 if self._area is None else _beside(shapes, self._area)

    @property
    def fault(self) -> str | None:
        """What is wrong with them."""
        faults = []
        if self._outside:
            faults.append(f"{self._outside} of {self.count} rows lie outside the scene's footprint")
        if self._empty:
            faults.append(f"{self._empty} of {self.count} rows have no geometry")
        return ", ".join(faults) or None


def _rows_by_scene(file: pq.ParquetFile) -> Iterator[tuple[str, pa.RecordBatch]]:
    import numpy as np

    for batch in file.iter_batches(_BATCH, columns=["detection_id", "scene_id", "geometry"]):
        named = batch.column("scene_id").dictionary_encode(null_encoding="encode")
        codes = named.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
        rows = batch.take(order)
        start = 0
        for end in ends.tolist():
            name = named.dictionary[int(codes[order[start]])].as_py()
            yield str(name), rows.slice(start, end - start)
            start = end


def _hashes(ids: pa.Array) -> NDArray[np.uint64]:
    from pandas.util import hash_array

    return hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)  # type: ignore[operator]


def _beside(shapes: NDArray[np.object_], area: BaseGeometry) -> int:
    import shapely

    shapely.prepare(area)
    there = shapes[shapely.is_geometry(shapes)]
    return int((~shapely.covers(area, there)).sum())


def _columns_fault(schema: pa.Schema, listed: list[tuple[str, str]]) -> str | None:
    found = [(field.name, str(field.type)) for field in schema]
    if found[: len(_FIRST)] != list(_FIRST) or found[-len(_LAST) :] != list(_LAST):
        wanted = [*_FIRST, *_LAST]
        wrong = [name for name, kind in wanted if (name, kind) not in found]
        reason = f"{', '.join(wrong)} missing or of another type" if wrong else "in another order"
        return f"its columns are not those of an output: {reason}"
    middle = found[len(_FIRST) : -len(_LAST)]
    for name, kind in middle:
        end = name.rpartition("_")[2]
        kinds = {
            "label": ("string",),
            "score": ("float",),
            "scores": ("list<element: float>", "list<item: float>"),
        }
        if kind not in kinds.get(end, ()):
            return f"its column {name} ({kind}) is no crop model's"
    if [name for name, _ in found] != [name for name, _ in listed]:
        return "its columns are not those that collection.json lists under table:columns"
    return None


def _geo_fault(file: pq.ParquetFile) -> tuple[str | None, Any]:
    """What is wrong with the GeoParquet metadata; and the CRS as pyproj takes it, None for pixels."""
    text = (file.schema_arrow.metadata or {}).get(b"geo")
    if text is None:
        return "it has no GeoParquet metadata", None
    try:
        geo = json.loads(text)
        column = geo["columns"][geo["primary_column"]]
        wrong = [
            what
            for what, right in (
                (f"version {geo.get('version')}", str(geo.get("version")).startswith("1.1.")),
                (f"primary column {geo['primary_column']}", geo["primary_column"] == "geometry"),
                (f"encoding {column.get('encoding')}", column.get("encoding") == "WKB"),
                (f"geometry types {column.get('geometry_types')}", _only_polygons(column)),
                ("no bbox covering", _covered(column)),
            )
            if not right
        ]
        crs = _crs(column.get("crs", "OGC:CRS84"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its GeoParquet metadata is broken", None
    return (f"its GeoParquet metadata has {', '.join(wrong)}" if wrong else None), crs


def _only_polygons(column: dict[str, Any]) -> bool:
    return set(column.get("geometry_types", [None])) <= {"Polygon", "MultiPolygon"}


def _covered(column: dict[str, Any]) -> bool:
    return column.get("covering") == {"bbox": {name: ["bbox", name] for name in _BOX}}


def _crs(value: Any) -> Any:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    if value is None:
        return None
    try:
        return CRS.from_user_input(value)
    except CRSError as error:
        raise ValueError(str(error)) from None


def _area(record: SceneRecord, crs: Any) -> BaseGeometry | None:
    """Where a scene's rows may lie, in the file's CRS; None where that can't be known."""
    import numpy as np
    import shapely
    from pyproj import CRS, Transformer

    scene = record.scene
    if crs is None:  # pixels
        if scene.shape is None:
            return None
        height, width = scene.shape
        return shapely.box(-1, -1, width + 1, height + 1)
    footprint = scene.footprint
    if footprint is None and scene.shape and scene.transform and scene.crs:
        footprint = outline(scene.shape, scene.transform, scene.crs)
    if footprint is None:
        return None
    if not crs.equals(CRS.from_epsg(4326), ignore_axis_order=True):
        to_map = Transformer.from_crs(4326, crs, always_xy=True)
        footprint = shapely.transform(
            footprint, lambda points: np.column_stack(to_map.transform(*points.T))
        )
    # One footprint may lie at both ends of the world.
    west, south, east, north = shapely.bounds(shapely.get_parts(footprint)).T
    return footprint.buffer(_TOLERANCE * max(*(east - west), *(north - south)))
