"""`geosweep evaluate`: tables, JSON, pictures, and one sentence for whatever does not fit."""

import json

import geopandas as gpd
import pandas as pd
import pytest
from typer.testing import CliRunner

from geosweep.pipeline import read_output
from geosweep.pipeline.cli import app
from tests.outputs import make_output

CORNERS = ["xmin", "ymin", "xmax", "ymax"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """An output of two scenes (and one that failed), and labels: its own boxes but for every fifth."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_output(folder)
    rows = read_output(folder / "out")
    labels = pd.DataFrame(rows[["image_path", *CORNERS]]).assign(label=rows["cropmodel_label"])
    labels[labels.index % 5 > 0].to_csv(folder / "truth.csv", index=False)
    places = rows[rows.index % 5 > 0][["label", "geometry"]]
    gpd.GeoDataFrame(places).to_crs("EPSG:32612").to_file(folder / "truth.gpkg")
    rows.drop(columns=["score"]).to_parquet(folder / "scoreless.parquet")
    return folder


def command(*arguments):
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["evaluate", *map(str, arguments)])


def test_read_output_follows_the_items(output):
    rows = read_output(output / "out")
    assert len(rows) == 40
    assert rows.crs == "EPSG:4326"
    assert "bbox" not in rows
    (output / "out" / "data" / "left-behind.parquet").write_bytes(b"a run was killed here")
    assert len(read_output(output / "out")) == 40


def test_an_output_in_pixels(output):
    done = command(
        output / "out", output / "truth.csv", "--label-column", "cropmodel_label", "--json"
    )
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert (figures["images"], figures["truths"], figures["predictions"]) == (2, 32, 40)
    assert (figures["correct"], figures["false_positives"]) == (32, 8)
    assert (figures["precision"], figures["recall"]) == (0.8, 1)
    assert figures["coco"]["map"] > 0


def test_an_output_on_the_map(output):
    done = command(output / "out", output / "truth.gpkg", "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert (figures["matched"], figures["false_positives"]) == (32, 8)
    assert list(figures["per_image"]) == ["(map)"]


def test_tables_fit_a_terminal(output, tmp_path):
    done = command(
        *(output / "out", output / "truth.csv", "--label-column", "cropmodel_label"),
        *("--plot", tmp_path / "plots", "--image-dir", output),
    )
    assert done.exit_code == 0, done.output
    for words in ("precision", "mAP at 0.50", "By label", "Confusion", "By image", "pictures"):
        assert words in done.output
    # But for the path of the pictures, which is left whole.
    lines = [line for line in done.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout.split("By label")[1].split("Confusion")[0]
    assert (tmp_path / "plots" / "images" / "01_A.png").is_file()


def test_all_predictions_below_the_score(output):
    done = command(output / "out", output / "truth.csv", "--class-agnostic", "--score", 1.1)
    assert done.exit_code == 0
    assert "there are no predictions from score 1.1 on" in done.stderr


@pytest.mark.parametrize(
    ("predictions", "truth", "options", "message"),
    [
        ("out", "truth.csv", [], "compare the column 'cropmodel_label'"),
        ("out", "truth.csv", ["--iou", "4"], "iou is 4.0"),
        ("out", "missing.csv", [], "missing.csv"),
        ("missing.parquet", "truth.csv", [], "There is no file"),
        ("scoreless.parquet", "truth.csv", [], "no column 'score'"),
        (".", "truth.csv", [], "no collection.json"),
        ("truth.csv", "truth.gpkg", [], "no column 'score'"),
    ],
)
def test_what_is_wrong_is_one_sentence(output, predictions, truth, options, message):
    done = command(output / predictions, output / truth, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
