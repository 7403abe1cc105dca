"""Detections per cell: known small cases, sums that hold, files that others read."""

import json
import logging
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geosweep.catalog import open_storage
from geosweep.catalog.errors import GeosweepError, JobError, OutputError
from geosweep.pipeline import density_grid, read_output, write_density
from geosweep.pipeline._grid_spec import GridSpec
from geosweep.pipeline.datafiles import DataFile
from geosweep.pipeline.grid import DetectionGrid
from tests.grids import output_of, rows_at
from tests.outputs import make_output

METRES = "EPSG:6933"


def small(folder):
    """Six detections in metres: three in one cell, one in the next, two far below, in two files."""
    first = rows_at(
        [110, 150, 199, 201],
        [950, 901, 999, 950],
        half=1,
        score=[0.5, 0.25, 0.75, 1.0],
        area=[4, 6, None, 10],
        label=["b", "a", "b", None],
    )
    second = rows_at([120, 120], [650, 650], half=1, score=0.5, area=[1, 3], label=["c", "c"])
    return output_of(folder / "out", [first, rows_at([], []), second], crs=METRES)


def test_a_small_grid_is_as_by_hand(tmp_path):
    grid = density_grid(small(tmp_path), cell=100, crs=METRES, by="label")
    nan = np.nan
    assert grid["x"].values.tolist() == [150, 250]
    assert grid["y"].values.tolist() == [950, 850, 750, 650]
    assert grid["count"].values.tolist() == [[3, 1], [0, 0], [0, 0], [2, 0]]
    assert grid["count"].dtype == np.int64
    expected = [[0.5, 1], [nan, nan], [nan, nan], [0.5, nan]]
    assert np.array_equal(grid["score_mean"], expected, equal_nan=True)
    assert grid["area_m2_sum"].values.tolist() == [[10, 10], [0, 0], [0, 0], [4, 0]]
    expected = [[5, 10], [nan, nan], [nan, nan], [2, nan]]
    assert np.array_equal(grid["area_m2_mean"], expected, equal_nan=True)
    assert grid["label"].values.tolist() == ["a", "b", "c", "(none)"]
    assert grid["count_by"].sel(label="b").values.tolist() == [[2, 0], [0, 0], [0, 0], [0, 0]]
    assert grid["count_by"].sum("label").equals(grid["count"])
    assert grid.odc.geobox.crs == METRES
    assert tuple(grid.odc.geobox.transform)[:6] == (100, 0, 100, 0, -100, 1000)


@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    places=st.lists(
        st.tuples(st.floats(-179.9, 179.9), st.floats(-89.9, 89.9)), min_size=1, max_size=30
    ),
    crs=st.sampled_from([METRES, "EPSG:3035", "+proj=gnom +lat_0=90", "EPSG:32633"]),
)
def test_sums_equal_the_rows_wherever_they_lie(tmp_path_factory, places, crs):
    lon, lat = np.array(places).T
    output = output_of(tmp_path_factory.mktemp("any") / "out", [rows_at(lon, lat)])
    grid = density_grid(output, cell=300_000, crs=crs, by="label")
    assert int(grid["count"].sum()) + grid.attrs["detections_outside"] == len(places)
    assert int(grid["count_by"].sum()) == int(grid["count"].sum())


def test_what_the_crs_cannot_show_is_counted_and_named(tmp_path, caplog):
    tables = [rows_at([10, 20], [50, 60]), rows_at([10, 20, 30], [-10, -20, 30])]
    output = output_of(tmp_path / "out", tables)
    with caplog.at_level(logging.WARNING, "geosweep"):
        grid = density_grid(output, cell=1000, crs="+proj=gnom +lat_0=90")
    assert int(grid["count"].sum()) == 3
    assert grid.attrs["detections_outside"] == 2
    assert "2 of 5 detections have no place" in caplog.text
    assert "(in data/s1-v1.parquet)" in caplog.text


def test_a_grid_of_nothing_but_that_is_not_written(tmp_path):
    output = output_of(tmp_path / "out", [rows_at(10, -10)])
    with pytest.raises(OutputError, match="none of its 1 detections has a place in"):
        write_density(output, crs="+proj=gnom +lat_0=90")


@pytest.mark.parametrize(
    ("crs", "cell", "times"),
    [
        ("EPSG:6933", 1e5, None),
        ("EPSG:3035", 1e5, None),
        ("EPSG:32633", 1e4, None),
        # 1 / cos² from 35° to 55°, and 1 / cos.
        ("EPSG:3857", 1e4, r"2\.0"),
        ("EPSG:4326", 0.1, r"1\.4"),
    ],
)
def test_unequal_cells_are_warned_of(tmp_path, caplog, crs, cell, times):
    output = output_of(tmp_path / "out", [rows_at([14, 15], [35, 55])])
    with caplog.at_level(logging.WARNING, "geosweep"):
        density_grid(output, cell=cell, crs=crs)
    if times is None:
        assert caplog.text == ""
    else:
        assert re.search(rf"A cell of {crs} holds up to {times}\d* times", caplog.text)


def test_labels_may_be_empty(tmp_path):
    output = output_of(tmp_path / "out", [rows_at([1, 1], [1, 1], label=["", None])])
    grid = density_grid(output, by="label")
    assert grid["label"].values.tolist() == ["", "(none)"]
    assert grid["count_by"].values.ravel().tolist() == [1, 1]


def test_cells_are_where_geopandas_puts_the_centroids(tmp_path):
    output = str(make_output(tmp_path, detections=400, imagery=False))
    grid = density_grid(output, cell=7.5, crs="EPSG:32612", by="cropmodel_label")
    frame = read_output(output)
    centroids = shapely.centroid(frame.geometry.to_numpy())
    points = gpd.GeoSeries(centroids, crs=frame.crs).to_crs("EPSG:32612")
    column, row = np.floor(points.x / 7.5), np.floor(-points.y / 7.5)
    expected = frame.groupby([row, column]).agg(
        n=("score", "size"), score=("score", "mean"), area=("area_m2", "sum")
    )
    found = grid.to_dataframe().query("count > 0").groupby(["y", "x"]).first()
    found = found.sort_index(level=["y", "x"], ascending=[False, True])
    assert found["count"].tolist() == expected["n"].tolist()
    assert np.allclose(found["score_mean"], expected["score"])
    assert np.allclose(found["area_m2_sum"], expected["area"])
    by_label = frame["cropmodel_label"].value_counts().sort_index()
    assert grid["count_by"].sum(("y", "x")).values.tolist() == by_label.tolist()


def test_grids_of_one_cell_size_fit_on_each_other(tmp_path):
    one = density_grid(output_of(tmp_path / "a", [rows_at(12.3, 45.6)]), cell=250)
    other = density_grid(output_of(tmp_path / "b", [rows_at(12.4, 45.7)]), cell=250)
    assert (float(one["x"][0]) - float(other["x"][0])) % 250 == 0
    assert (float(one["y"][0]) - float(other["y"][0])) % 250 == 0


def test_an_output_without_detections_has_a_grid_without_cells(tmp_path):
    output = output_of(tmp_path / "out", [rows_at([], [])])
    grid = density_grid(output, by="label")
    assert dict(grid.sizes) == {"y": 0, "x": 0, "label": 0}
    assert set(grid.data_vars) == {
        "count",
        "score_mean",
        "area_m2_sum",
        "area_m2_mean",
        "count_by",
    }
    with pytest.raises(OutputError, match=r"no grid of .*out to write: it has no detections"):
        write_density(output)
    assert not (tmp_path / "out" / "density").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cell": 0}, "cell is 0, but must be a length above 0"),
        ({"cell": float("nan")}, "cell is nan, but must"),
        ({"crs": "EPSG:1"}, "crs is 'EPSG:1', which is no CRS that PROJ knows"),
        ({"crs": "EPSG:4326"}, "counts in degrees; take a small cell"),
        ({"crs": "EPSG:4978"}, "neither projected nor geographic"),
        ({"by": "species"}, "which the rows don't have; take one of label"),
        ({"by": "score"}, "which is no text; take one of label"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, arguments, sentence):
    output = output_of(tmp_path / "out", [rows_at(1, 1)])
    for call in (density_grid, write_density):
        with pytest.raises(JobError, match=sentence):
            call(output, **arguments)


def test_a_column_with_too_many_values_is_refused(tmp_path):
    labels = [str(n) for n in range(257)]
    rows = rows_at(np.zeros(257), np.zeros(257), label=labels)
    assert density_grid(output_of(tmp_path / "a", [rows[:256]]), by="label").sizes["label"] == 256
    with pytest.raises(JobError, match="'label' has more than 256 values"):
        density_grid(output_of(tmp_path / "b", [rows[:200], rows[200:]]), by="label")


def test_pixels_have_no_place_on_a_map(tmp_path):
    output = output_of(tmp_path / "out", [rows_at(5, 5)], crs=None)
    with pytest.raises(OutputError, match=r"are in pixels \(crs: null\)"):
        density_grid(output)


def test_a_grid_too_large_for_memory_is_refused_and_a_huge_one_not_written(tmp_path):
    output = output_of(tmp_path / "out", [rows_at([-170, 170], [-60, 60])])
    with pytest.raises(OutputError, match="GB of memory; take a cell larger than 500"):
        density_grid(output, cell=500)
    with pytest.raises(OutputError, match="cells; take a cell larger than 10 m"):
        write_density(output, cell=10)


def test_a_broken_data_file_is_one_sentence(tmp_path):
    output = output_of(tmp_path / "out", [rows_at(1, 1)])
    (tmp_path / "out" / "data" / "s0-v1.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(OutputError, match=r"data/s0-v1\.parquet, which an item points to"):
        density_grid(output)


def arrow_peak(folder, groups):
    """Bytes that arrow needs at most for a file of so many row groups."""
    rows = rows_at(np.linspace(1, 2, 10_000), np.linspace(1, 2, 10_000))
    pq.write_table(pa.concat_tables([rows] * groups), folder / "rows", row_group_size=10_000)
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        grid = DetectionGrid(GridSpec(1000), "EPSG:4326", folder)
        with pq.ParquetFile(folder / "rows") as file:
            grid.add(DataFile("rows", frozenset(), file, dead=0))
    finally:
        pa.set_memory_pool(before)
    assert grid.inside == groups * 10_000
    return pool.max_memory()


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
    arrow_peak(tmp_path, 2)  # what is set up once
    assert arrow_peak(tmp_path, 40) < 1.3 * arrow_peak(tmp_path, 4)


def test_the_file_is_a_cog_that_equals_the_dataset(tmp_path):
    output = small(tmp_path)
    made = write_density(output, tmp_path / "d.tif", cell=100, by="label")
    grid = density_grid(output, cell=100, by="label")
    with rasterio.open(tmp_path / "d.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.profile["tiled"]
        assert file.crs == METRES
        assert file.transform == grid.odc.geobox.transform
        assert (
            file.descriptions
            == made.bands
            == (
                "count",
                "score_mean",
                "area_m2_sum",
                "area_m2_mean",
                "count label=a",
                "count label=b",
                "count label=c",
                "count label=(none)",
            )
        )
        assert file.units[2:4] == ("m2", "m2")
        assert np.isnan(file.nodata)
        assert set(file.dtypes) == {"float64"}
        read = file.read()
    for band, name in enumerate(("count", "score_mean", "area_m2_sum", "area_m2_mean")):
        assert np.array_equal(read[band], grid[name], equal_nan=True)
    assert np.array_equal(read[4:], grid["count_by"])
    assert (made.detections, made.outside, made.shape) == (6, 0, (4, 2))


def test_wide_grids_have_overviews_and_zeros_where_nothing_is(tmp_path):
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(10, 16, 300), rng.uniform(-3, 3, 300)
    output = output_of(tmp_path / "out", [rows_at(lon, lat)])
    made = write_density(output, cell=500)
    assert made.path == str(tmp_path / "out" / "density" / "density.tif")
    with rasterio.open(made.path) as file:
        assert min(file.shape) > 1024
        assert file.overviews(1)[:2] == [2, 4]
        assert file.block_shapes[0] == (512, 512)
        count, score = file.read([1, 2])
        assert count.sum() == 300
        # Whole tiles without detections, too, are zeros and NaN.
        assert np.array_equal(np.isnan(score), count == 0)
        for x, y in zip(*file_points(lon, lat), strict=True):
            assert count[file.index(x, y)] >= 1
    with rasterio.open(made.path, overview_level=0) as half:
        # Averages: as many detections for each cell of full size.
        assert half.read(1).mean() == pytest.approx(count.mean(), rel=0.02)


def file_points(lon, lat):
    points = gpd.GeoSeries(shapely.points(lon, lat), crs="EPSG:4326").to_crs(METRES)
    return points.x, points.y


def test_the_item_says_what_the_file_is(tmp_path):
    output = small(tmp_path)
    elsewhere = tmp_path / "maps" / "trees.tif"
    made = write_density(output, elsewhere, cell=100, by="label")
    written = json.loads((Path(output) / made.item).read_text())
    # STAC's own schema comes with pystac.
    JsonSchemaSTACValidator().validate_core(written, pystac.STACObjectType.ITEM, "1.1.0")
    item = pystac.Item.from_file(str(Path(output) / made.item))
    asset = item.assets["data"]
    assert made.item == "density/trees.json"
    assert Path(asset.get_absolute_href()).samefile(elsewhere)
    assert asset.media_type == pystac.MediaType.COG
    assert asset.extra_fields["file:size"] == elsewhere.stat().st_size
    assert [band["name"] for band in asset.extra_fields["bands"]] == list(made.bands)
    assert item.properties["proj:code"] == METRES
    assert item.properties["proj:shape"] == [4, 2]
    assert item.properties["geosweep:detections"] == 6
    assert item.properties["geosweep:by"] == "label"
    assert item.properties["start_datetime"] == "2020-01-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2020-01-03T00:00:00Z"
    corners = gpd.GeoSeries([shapely.box(100, 600, 300, 1000)], crs=METRES).to_crs("EPSG:4326")
    assert item.bbox == pytest.approx(corners.total_bounds)
    outline = shapely.geometry.shape(item.geometry)
    assert outline.symmetric_difference(corners[0]).area < 1e-12
    assert item.get_collection().id == "test"
    # Readers of the dataset see scenes alone.
    assert len(read_output(output)) == 6
    assert sorted(path.name for path in (Path(output) / "items").iterdir()) == [
        "s0.json",
        "s1.json",
        "s2.json",
    ]


def test_an_item_across_the_antimeridian_has_two_halves(tmp_path):
    output = output_of(tmp_path / "out", [rows_at([179.9, -179.9], [-17, -18])])
    made = write_density(output, cell=1000, crs="EPSG:3832")
    item = json.loads((tmp_path / "out" / made.item).read_text())
    west, _, east, _ = item["bbox"]
    assert 179 < west < 180
    assert -180 < east < -179
    assert item["geometry"]["type"] == "MultiPolygon"


def test_an_object_store_gets_file_and_item(tmp_path):
    output = output_of("memory://density-test", [rows_at([1, 2], [1, 2])], folder=tmp_path)
    storage = open_storage(output)
    made = write_density(output, cell=10_000)
    assert made.path == storage.uri("density/density.tif")
    made = write_density(output, tmp_path / "mine.tif", cell=10_000)
    assert storage.get("density/mine.tif") == (tmp_path / "mine.tif").read_bytes()
    item = json.loads(storage.get(made.item))
    assert item["assets"]["data"]["href"] == "./mine.tif"
    assert int(density_grid(output, cell=10_000)["count"].sum()) == 2


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    output = output_of(tmp_path / "out", [rows_at(1, 1)])
    with pytest.raises(JobError, match=r"let its name end in \.tif"):
        write_density(output, tmp_path / "d.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(GeosweepError, match="can't be written"):
        write_density(output, tmp_path / "file" / "d.tif")
