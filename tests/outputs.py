"""Outputs in geosweep's format, made on the spot from known boxes, for tests of what reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from geosweep.catalog import Records, Scene, SceneRecord, open_storage, write_collection
from geosweep.catalog.records import Status
from tests.rasters import UTM, write_raster

SIZE = 400
GSD = 0.5
NAMES = ("A", "B")
TIME = pd.Timestamp("2019-07-01", tz="UTC")


def scene_transform(index: int) -> Affine:
    """Scenes of 200 m side by side, with an overlap of 20 m."""
    return Affine(GSD, 0, 528_000 + index * 180, 0, -GSD, 4_978_000)


def make_output(
    folder: Path,
    *,
    detections: int = 40,
    imagery: bool = True,
    labels: tuple[str, str] = ("Alive", "Dead"),
    crs: str | None = "EPSG:4326",
    failed: bool = True,
    name: str = "test",
    seed: int = 1,
) -> Path:
    """Two scenes of `detections` boxes in all, and one that failed; the output's folder."""
    output = folder / "out"
    storage = open_storage(output)
    columns = [("score", "float", "")]
    job = {"name": name, "source": {"rasters": ["x"]}, "output": {"path": "out", "crs": crs}}
    write_collection(
        storage,
        collection_id=name,
        description="made by a test",
        fingerprint="f" * 16,
        job=job,
        columns=columns,
        models={"geosweep/tree": "1"},
    )
    records = Records(storage)
    rng = np.random.default_rng(seed)
    for index, scene_name in enumerate(NAMES):
        path = folder / f"{scene_name}.tif"
        if imagery:
            grey = np.full((3, SIZE, SIZE), 60 + 60 * index, np.uint8)
            write_raster(path, grey, crs=UTM, transform=scene_transform(index))
        count = detections // 2
        frame = scene_rows(scene_name, index, count, rng, labels, crs)
        key = f"data/{scene_name}-v1.parquet"
        (output / "data").mkdir(parents=True, exist_ok=True)
        frame.to_parquet(output / key, write_covering_bbox=True, schema_version="1.1.0")
        records.commit(_record(_scene(scene_name, path, index), key, count), replace=False)
    if failed:
        broken = Scene(id="broken", href=str(folder / "broken.tif"), item_id="broken")
        record = _record(
            broken, None, 0, error="broken.tif <script>alert(1)</script> is truncated."
        )
        records.commit(record, replace=False)
    return output


def scene_rows(
    scene: str,
    index: int,
    count: int,
    rng: np.random.Generator,
    labels: tuple[str, str],
    crs: str | None,
) -> gpd.GeoDataFrame:
    """Boxes of 20 to 40 px on a lattice, so that none hides another's edge, as output rows."""
    side = max(1, int(np.ceil(np.sqrt(count))))
    pitch = SIZE / side
    row, column = np.divmod(np.arange(count), side)
    half = min(pitch * 0.4, 20.0) * rng.uniform(0.5, 1.0, count)
    x, y = (column + 0.5) * pitch, (row + 0.5) * pitch
    boxes = np.column_stack([x - half, y - half, x + half, y + half]).astype(np.float32)
    geometry = shapely.box(*boxes.astype(float).T)
    series = gpd.GeoSeries(geometry)
    if crs is not None:
        a, b, c, d, e, f = scene_transform(index)[:6]
        series = series.affine_transform([a, b, d, e, c, f]).set_crs(UTM).to_crs(crs)
    picks = rng.integers(0, 2, count)
    return gpd.GeoDataFrame(
        {
            "detection_id": [f"{scene}{n:06d}" for n in range(count)],
            "scene_id": np.full(count, scene, dtype=object),
            "image_path": np.full(count, f"{scene}.tif", dtype=object),
            "datetime": pd.Series(
                [pd.Timestamp("2019-07-01", tz="UTC")] * count, dtype="datetime64[us, UTC]"
            ),
            **{n: boxes[:, i] for i, n in enumerate(("xmin", "ymin", "xmax", "ymax"))},
            "label": np.full(count, "Tree", dtype=object),
            "score": rng.uniform(0.3, 1.0, count).astype(np.float32),
            "cropmodel_label": np.array(labels, dtype=object)[picks],
            "cropmodel_score": rng.uniform(0.5, 1.0, count).astype(np.float32),
            "area_m2": ((2 * half * GSD) ** 2).astype(np.float32),
        },
        geometry=series,
    )


def _scene(name: str, path: Path, index: int) -> Scene:
    transform = scene_transform(index)
    corners = [transform @ corner for corner in ((0, 0), (0, SIZE), (SIZE, SIZE), (SIZE, 0))]
    outline = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    footprint = shapely.geometry.shape(transform_geom(CRS.from_string(UTM), "EPSG:4326", outline))
    return Scene(
        id=name,
        href=str(path),
        item_id=name,
        datetime=datetime(2019, 7, 1, tzinfo=UTC),
        footprint=footprint,
        crs=UTM,
        transform=transform[:6],
        shape=(SIZE, SIZE),
    )


def _record(scene: Scene, data: str | None, rows: int, error: str | None = None) -> SceneRecord:
    status: Status = "failed" if error else "succeeded" if rows else "empty"
    return SceneRecord(
        scene=scene,
        status=status,
        version="v1",
        fingerprint="f" * 16,
        counts={"windows": 4},
        timings={},
        data=data,
        rows=rows,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        error=error,
    )
