"""Rows: exact columns, geometry where rasterio puts it, GeoParquet 1.1 that others read."""

import json
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio.transform
import shapely
from affine import Affine
from pyproj import Geod, Transformer

from geosweep.pipeline.collect import SceneDetections
from geosweep.pipeline.geofile import write_geoparquet
from geosweep.pipeline.rows import (
    CropColumns,
    RowSchema,
    SceneRows,
    to_geodataframe,
)
from geosweep.pipeline.scene_reader import SceneHeader
from geosweep.pipeline.windows import WindowGrid

NORTH_UP = Affine(0.1, 0, 500_000, 0, -0.1, 4_978_000)
ROTATED = NORTH_UP @ Affine.rotation(30)
OBLONG = Affine(0.2, 0, 500_000, 0, -0.3, 4_978_000)
DEGREES = Affine(1e-6, 0, -111.0, 0, -1e-6, 45.0)
SIZE = (5000, 4000)


def header(transform=NORTH_UP, crs="EPSG:32612"):
    grid = WindowGrid.cover(*SIZE, 400, 0.05)
    return SceneHeader(grid, (1.0, 1.0), None, transform, crs, SIZE, 0, 0)


def detections(count=50, classes=None, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 3900, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 90, (count, 2))], axis=1)
    return SceneDetections(
        boxes.astype(np.float32),
        rng.integers(0, 2, count),
        rng.uniform(0.3, 1, count).astype(np.float32),
        {
            name: rng.dirichlet(np.ones(n), count).astype(np.float32)
            for name, n in (classes or {}).items()
        },
        {},
    )


def schema(crs="EPSG:4326", crops=()):
    return RowSchema(("Tree", "Bush"), "test@1", tuple(crops), crs)


def rows(found, head=None, shape=None, scene_id="s"):
    return SceneRows(
        found,
        head or header(),
        shape or schema(),
        scene_id=scene_id,
        image_path="s.tif",
        time=datetime(2022, 7, 1, tzinfo=UTC),
    )


def table(*args, **options):
    return rows(*args, **options).table()


BASE = [
    "detection_id",
    "scene_id",
    "image_path",
    "datetime",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
    "label",
    "score",
]
END = ["area_m2", "geometry", "bbox"]


def test_columns_are_exactly_the_interfaces():
    assert table(detections()).column_names == BASE + END
    crops = (
        CropColumns("cropmodel", ("Alive", "Dead")),
        CropColumns("species", ("a", "b", "c"), True),
    )
    found = detections(classes={"cropmodel": 2, "species": 3})
    rows = table(found, shape=schema(crops=crops))
    names = [
        "cropmodel_label",
        "cropmodel_score",
        "species_label",
        "species_score",
        "species_scores",
    ]
    assert rows.column_names == BASE + names + END
    types = {field.name: field.type for field in rows.schema}
    assert (
        types["score"]
        == types["xmin"]
        == types["area_m2"]
        == types["species_score"]
        == pa.float32()
    )
    assert types["datetime"] == pa.timestamp("us", tz="UTC")
    assert types["species_scores"] == pa.list_(pa.float32())


def test_crop_columns_belong_to_their_detection():
    found = detections(classes={"species": 3})
    crops = (CropColumns("species", ("a", "b", "c"), True),)
    frame = to_geodataframe(table(found, shape=schema(crops=crops)), "EPSG:4326")
    by_box = {tuple(box): p for box, p in zip(found.boxes, found.classes["species"], strict=True)}
    for row in frame.itertuples():
        probabilities = by_box[row.xmin, row.ymin, row.xmax, row.ymax]
        assert row.species_label == "abc"[probabilities.argmax()]
        assert row.species_score == probabilities.max()
        np.testing.assert_array_equal(row.species_scores, probabilities)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (NORTH_UP, "EPSG:32612"),
        (ROTATED, "EPSG:32612"),
        (OBLONG, "EPSG:32612"),
        (DEGREES, "EPSG:4326"),
        (Affine(0.1, 0, -12_356_000, 0, -0.1, 5_621_000), "EPSG:3857"),
    ],
)
@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:32612"])
def test_polygons_are_where_rasterio_puts_the_pixel_box(transform, crs, target):
    found = detections()
    frame = to_geodataframe(table(found, header(transform, crs), schema(target)), target)
    back = Transformer.from_crs(target, crs, always_xy=True)
    for row in frame.itertuples():
        corners = {
            (row.xmin, row.ymin),
            (row.xmax, row.ymin),
            (row.xmax, row.ymax),
            (row.xmin, row.ymax),
        }
        x, y = back.transform(*np.array(row.geometry.exterior.coords[:-1]).T)
        rows_, columns = rasterio.transform.rowcol(transform, x, y, op=lambda value: value)
        got = np.stack([columns, rows_], axis=1)
        for corner in corners:
            assert np.abs(got - corner).max(axis=1).min() < 0.01


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (NORTH_UP, "EPSG:32612"),
        (DEGREES, "EPSG:4326"),
        (Affine(0.1, 0, -12_356_000, 0, -0.1, 5_621_000), "EPSG:3857"),
    ],
)
def test_areas_are_the_grounds(transform, crs):
    frame = to_geodataframe(table(detections(), header(transform, crs)), "EPSG:4326")
    truth = [abs(Geod(ellps="WGS84").geometry_area_perimeter(shape)[0]) for shape in frame.geometry]
    np.testing.assert_allclose(frame["area_m2"], truth, rtol=2e-3)


def test_utm_areas_are_the_grids():
    frame = to_geodataframe(table(detections()), "EPSG:4326")
    pixels = (frame.xmax - frame.xmin).astype(float) * (frame.ymax - frame.ymin).astype(float)
    np.testing.assert_allclose(frame["area_m2"], pixels * 0.01, rtol=1e-5)


def test_ids_are_stable_and_tell_scene_model_box_and_label_apart():
    found = detections()
    one, again = table(found)["detection_id"].to_pylist(), table(found)["detection_id"].to_pylist()
    assert one == again
    assert len(set(one)) == 50
    other = table(found, scene_id="t")
    assert not set(one) & set(other["detection_id"].to_pylist())


def test_rows_do_not_depend_on_the_order_they_came_in():
    found = detections(classes={"c": 2})
    shuffle = np.random.default_rng(1).permutation(50)
    mixed = SceneDetections(
        found.boxes[shuffle],
        found.labels[shuffle],
        found.scores[shuffle],
        {"c": found.classes["c"][shuffle]},
        {},
    )
    shape = schema(crops=(CropColumns("c", ("x", "y")),))
    assert table(found, shape=shape).equals(table(mixed, shape=shape))


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_files_are_geoparquet_1_1(tmp_path, count):
    path = tmp_path / "rows.parquet"
    made = rows(detections(count))
    write_geoparquet(made.groups(), path, made.schema, crs="EPSG:4326", bounds=made.bounds)
    meta = pq.read_metadata(path)
    geo = json.loads(meta.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    if count:
        assert meta.row_group(0).column(0).compression == "ZSTD"
    frame = gpd.read_parquet(path)
    assert len(frame) == count
    assert frame.crs == "EPSG:4326"
    if count == 2500:
        west, south, east, north = frame.total_bounds
        box = (west, south, (west + east) / 2, (south + north) / 2)
        part = gpd.read_parquet(path, bbox=box)
        assert set(part.detection_id) == set(
            frame.cx[box[0] : box[2], box[1] : box[3]].detection_id
        )
        np.testing.assert_allclose(
            pq.read_table(path)["bbox"].combine_chunks().field("xmin"), frame.bounds.minx
        )


def test_hilbert_order_keeps_neighbours_together():
    frame = to_geodataframe(table(detections(2000)), "EPSG:4326")
    x, y = shapely.centroid(frame.geometry).x, shapely.centroid(frame.geometry).y
    steps = np.hypot(np.diff(x), np.diff(y)).mean()
    shuffled = np.random.default_rng(0).permutation(2000)
    assert steps < 0.2 * np.hypot(np.diff(x[shuffled]), np.diff(y[shuffled])).mean()


def test_pixel_output_and_rasters_without_georeferencing():
    found = detections()
    frame = to_geodataframe(table(found, header(None, None), schema(None)), None)
    assert frame.crs is None
    np.testing.assert_allclose(frame.bounds.to_numpy(), frame[["xmin", "ymin", "xmax", "ymax"]])
    assert frame["area_m2"].isna().all()
    with pytest.raises(ValueError, match="georeferencing"):
        table(found, header(None, None), schema("EPSG:4326"))
