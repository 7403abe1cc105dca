"""`geosweep catalog`, as a user runs it."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import rasterio
from typer.testing import CliRunner

from geosweep.catalog import open_source
from geosweep.catalog.geoparquet import read_items
from geosweep.pipeline import read_output, run
from geosweep.pipeline.cli import app
from tests.detectors import grey
from tests.rasters import write_raster
from tests.scenes import job_over, painted_scene


def geosweep(*arguments):
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": "120"}
    )


@pytest.fixture
def rasters(tmp_path):
    """A COG, and the same kind of scene in strips with its time in a tag."""
    folder = tmp_path / "in"
    folder.mkdir()
    painted_scene(folder, 0)
    with rasterio.open(painted_scene(tmp_path, 1)) as source:
        profile = source.profile | {"driver": "GTiff", "tiled": False, "compress": "lzw"}
        for key in ("blockxsize", "blockysize", "interleave"):
            profile.pop(key)
        with rasterio.open(folder / "scene1.tif", "w", **profile) as target:
            target.write(source.read())
            target.update_tags(TIFFTAG_DATETIME="2021:07:03 10:20:30")
    return folder


def test_from_rasters_to_items_to_rows_to_a_sound_output(rasters, tmp_path):
    items = tmp_path / "items.parquet"
    done = geosweep("catalog", "create", rasters, "-o", items, "--datetime-from-mtime")
    assert done.exit_code == 0, done.output
    assert "not cloud-optimized" in done.stderr and "scene1.tif" in done.stderr
    assert "decodes" in done.stderr and "--cogify DIR" in done.stderr
    assert [scene.id for scene in open_source({"stac": str(items)})] == ["scene0", "scene1"]

    plain = job_over([rasters], tmp_path / "plain")
    source = {"stac": str(items)}
    by_items = job_over([], tmp_path / "out", source=source)
    for job in (plain, by_items):
        assert run(job, engine="local", progress=False).exit_code == 0
    ours, theirs = (
        read_output(tmp_path / name).sort_values("detection_id", ignore_index=True)
        for name in ("out", "plain")
    )
    assert len(ours) == 108
    # Only the first raster's time differs: it has no tag, and got that of its file.
    same = [name for name in ours.columns if name != "datetime"]
    pd.testing.assert_frame_equal(ours[same], theirs[same])
    assert ours.datetime.notna().all()

    done = geosweep("catalog", "validate", tmp_path / "out", "--offline")
    assert done.exit_code == 0, done.output
    assert "every detection_id is there once" in done.stdout
    assert "problem" not in done.stderr
    assert "not at hand" in done.stderr


def test_cogs_give_the_same_rows(rasters, tmp_path):
    items = tmp_path / "items.json"
    command = ("catalog", "create", rasters, "-o", items, "--datetime", "2022", "--cogify")
    done = geosweep(*command, tmp_path / "cogs")
    assert done.exit_code == 0, done.output
    assert "made COGs" in done.stdout and "no COGs" not in done.stdout
    assert [path.name for path in (tmp_path / "cogs").iterdir()] == ["scene1.tif"]
    job = job_over([], tmp_path / "out", source={"stac": str(items)})
    plain = job_over([rasters], tmp_path / "plain")
    for each in (job, plain):
        assert run(each, engine="local", progress=False).exit_code == 0
    ours, theirs = (
        read_output(tmp_path / name).sort_values("detection_id", ignore_index=True)
        for name in ("out", "plain")
    )
    same = [name for name in ours.columns if name not in ("datetime", "image_path")]
    pd.testing.assert_frame_equal(ours[same], theirs[same])
    assert "1 there already" in geosweep(*command, tmp_path / "cogs").stdout


def test_rasters_without_an_item_are_listed(rasters, tmp_path):
    (rasters / "text.tif").write_text("hello")
    items = tmp_path / "items.parquet"
    done = geosweep("catalog", "create", rasters, "-o", items)
    assert done.exit_code == 1
    assert "no item: " in done.stderr and "text.tif" in done.stderr
    assert "scene0.tif has no tag with its time" in done.stderr
    assert [item["id"] for item in read_items(items)] == ["scene1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.tif", "-o", "x.json"], "missing.tif does not exist"),
        (["{raster}", "-o", "x.csv"], "neither .parquet nor .json"),
        (["{raster}", "-o", "x.json", "--datetime-pattern", "%q"], "may hold %Y"),
        (["{raster}", "-o", "x.json", "--datetime", "soon"], "'soon' is not a time"),
        (["{raster}", "-o", "x.json"], "give --datetime"),
    ],
)
def test_mistakes_of_create_are_one_sentence(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    raster = write_raster(tmp_path / "a.tif", grey(64, 64, 1))
    done = geosweep("catalog", "create", *(part.format(raster=raster) for part in arguments))
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_validate_lists_problems(tmp_path):
    run(job_over([painted_scene(tmp_path, 0)], tmp_path / "out"), engine="local", progress=False)
    path = tmp_path / "out" / "items" / "scene0.json"
    item = json.loads(path.read_text())
    item["properties"]["geosweep:rows"] = 3
    path.write_text(json.dumps(item))
    done = geosweep("catalog", "validate", tmp_path / "out", "--offline")
    assert done.exit_code == 1
    assert "it has 54 rows of the scene, items/scene0.json says 3" in done.stderr


def test_what_is_no_output_exits_with_2(tmp_path):
    done = geosweep("catalog", "validate", tmp_path / "nowhere")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    done = geosweep("catalog", "validate", tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "no collection.json" in done.stderr
