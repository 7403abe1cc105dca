"""Density grids of a real run, from Python and from the command line."""

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from geosweep.pipeline import density_grid, run
from geosweep.pipeline.cli import app
from tests.scenes import job_over, painted_scene


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("density")
    rasters = [painted_scene(folder, number) for number in range(2)]
    return run(job_over(rasters, folder / "out"), engine="local", progress=False)


def density(*arguments):
    return CliRunner().invoke(app, ["density", *map(str, arguments)], env={"COLUMNS": "200"})


def test_a_runs_grid_holds_all_that_was_found(result):
    grid = result.to_xarray(cell=10, by="label")
    frame = result.to_geopandas()
    assert int(grid["count"].sum()) == len(frame) == result.counts["detections"] > 80
    assert float(grid["area_m2_sum"].sum()) == pytest.approx(frame["area_m2"].sum())
    # Cells of equal area in another CRS hold the same detections, elsewhere.
    assert int(result.to_xarray(50, "EPSG:3035")["count"].sum()) == len(frame)
    for label, count in frame["label"].value_counts().items():
        assert int(grid["count_by"].sel(label=label).sum()) == count
    by_items = density_grid(result.output, cell=10, by="label")
    assert by_items.identical(grid)


def test_the_command_writes_the_same_grid(result, tmp_path):
    done = density(result.output, "--cell", 10, "--by", "label", "-o", tmp_path / "d.tif")
    assert done.exit_code == 0, done.output
    assert "EPSG:6933" in done.output
    assert f"{result.counts['detections']}" in done.output
    grid = result.to_xarray(cell=10, by="label")
    with rasterio.open(tmp_path / "d.tif") as file:
        assert np.array_equal(file.read(1), grid["count"])
        assert file.transform == grid.odc.geobox.transform


def test_mistakes_on_the_command_line_are_one_sentence(result, tmp_path):
    for arguments in (["--cell", "-1"], ["--crs", "EPSG:1"], ["--by", "nothing"]):
        done = density(result.output, *arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
        assert done.stderr.startswith("geosweep: ")
    done = density(tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "There is no folder" in done.stderr
