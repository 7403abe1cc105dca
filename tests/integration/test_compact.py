"""`geosweep catalog compact` between runs, as a user works, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from geosweep.catalog import write_snapshot
from geosweep.models.data.cropframe import labelled_boxes
from geosweep.pipeline import density_grid, read_output, run, write_map
from geosweep.pipeline._view import read_view
from geosweep.pipeline.cli import app
from geosweep.pipeline.compaction import compact
from tests.docs import blocks
from tests.outputs import make_output
from tests.scenes import job_over, painted_scene
from tests.unit.pipeline.test_compact import commit, many_scenes, rows_of, scene_at

ROOT = Path(__file__).parents[2]


def geosweep(*arguments):
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": "120"}
    )


def data_files(output):
    return sorted(p.name for p in output.glob("data/**/*.parquet"))


def sweep(job, **options):
    return run(job, engine="local", progress=False, **options)


def test_runs_go_on_after_it(tmp_path):
    rasters = [painted_scene(tmp_path, number) for number in range(3)]
    output = tmp_path / "out"
    job = job_over(rasters, output)
    assert sweep(job).exit_code == 0
    before = rows_of(output)
    done = geosweep("catalog", "compact", output)
    assert done.exit_code == 0, done.output
    assert "3 → 1" in done.stdout
    (shared,) = data_files(output)
    pd.testing.assert_frame_equal(rows_of(output), before)

    again = sweep(job)
    assert (again.counts["scenes_now"], len(again.to_arrow())) == (0, len(before))
    assert data_files(output) == [shared]

    content = (output / "data" / shared).read_bytes()
    rasters[1].unlink()
    painted_scene(tmp_path, 7, step_m=0).rename(rasters[1])
    now = sweep(job)
    assert now.counts["scenes_now"] == 1
    assert len(data_files(output)) == 2
    assert (output / "data" / shared).read_bytes() == content
    fresh = tmp_path / "fresh"
    sweep(job_over(rasters, fresh))
    expected = rows_of(fresh)
    pd.testing.assert_frame_equal(rows_of(output), expected)

    # Everybody passes over the dead rows.
    table = now.to_arrow()
    dataset = now.dataset()
    assert len(table) == dataset.count_rows() == len(expected)
    assert sorted(dataset.to_table()["detection_id"].to_pylist()) == list(expected.detection_id)
    assert int(density_grid(output)["count"].sum()) == len(expected)
    assert int(now.to_xarray()["count"].sum()) == len(expected)
    assert read_view(output, max_detections=10).total == len(expected)
    assert len(labelled_boxes(output)) == len(expected)
    done = geosweep("catalog", "validate", output, "--offline")
    assert done.exit_code == 0, done.output
    assert "54 rows are of scenes that were replaced" in done.stderr

    done = geosweep("catalog", "compact", output)
    assert "rows of replaced scenes, dropped" in done.stdout
    assert len(data_files(output)) == 1
    pd.testing.assert_frame_equal(rows_of(output), expected)
    done = geosweep("catalog", "validate", output, "--offline")
    assert (done.exit_code, "replaced" in done.stderr) == (0, False), done.output
    assert "nothing to do" in geosweep("catalog", "compact", output).stdout
    assert sweep(job, overwrite=True).counts["scenes_now"] == 3
    assert sweep(job, retry_failed=True).counts["scenes_now"] == 0
    pd.testing.assert_frame_equal(rows_of(output), expected)
    assert len(data_files(output)) == 1


KILLED = """
import os, signal, sys
from geosweep.catalog import compact as shelf, open_storage, read_collection
from geosweep.pipeline.compaction import compact

real, moves = shelf.Shelf.move, []

def move(self, *arguments):
    if len(moves) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    moves.append(arguments)
    return real(self, *arguments)

shelf.Shelf.move = move
storage = open_storage(sys.argv[1])
compact(storage, read_collection(storage))
"""


def test_killed_half_way_it_leaves_the_same_rows_and_is_finished_by_the_next(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [9] * 12)
    before = rows_of(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(data_files(tmp_path)) == 13
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)
    report = compact(storage, collection, patience_s=1)
    assert (report.files_after, len(data_files(tmp_path))) == (1, 1)
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)


def test_the_map_and_the_grid_are_the_same_after_it(tmp_path):
    output = make_output(tmp_path, imagery=False)
    page = write_map(output, tmp_path / "before.html").read_bytes()
    grid = density_grid(output, by="cropmodel_label")
    assert geosweep("catalog", "compact", output).exit_code == 0
    assert len(data_files(output)) == 1
    assert len(write_map(output, tmp_path / "after.html").read_bytes()) == len(page)
    assert density_grid(output, by="cropmodel_label").equals(grid)


@pytest.mark.parametrize("size", ["lots", "0", "1kB", "9GB"])
def test_a_size_that_makes_no_sense_is_one_sentence(tmp_path, size):
    done = geosweep("catalog", "compact", tmp_path, "--target-size", size)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "write one from 1MB to 4GiB" in done.stderr


def test_the_documented_way_to_read_with_pyarrow_passes_over_dead_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage, collection, committer = many_scenes(tmp_path / "out", [9] * 6)
    compact(storage, collection)
    commit(committer, scene_at(3, updated="2024-05-01T00:00:00Z"), 2)
    write_snapshot(storage)
    (text,) = [block.text for block in blocks("output.md") if "# with pyarrow" in block.text]
    everything = text.replace("-110.70, 44.95, -110.64, 44.96", "-180, -90, 180, 90")
    for code, left in ((everything, -180.0), (text.replace("-110.64", "-109.98"), -110.70)):
        found: dict = {}
        exec(code.replace("44.96", "45.1"), found)
        frame = read_output("out")
        wanted = frame[(frame.bounds.minx <= found["east"]) & (frame.bounds.maxx >= left)]
        assert sorted(found["rows"]["detection_id"].to_pylist()) == sorted(wanted.detection_id)
        assert 0 < len(wanted) <= 47


def test_on_a_real_s3_too(s3, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    output = f"{s3.make_bucket('compact')}/out"
    storage, _, committer = many_scenes(output, [9, 0, 4, 3])
    before = rows_of(output)
    done = geosweep("catalog", "compact", output)
    assert done.exit_code == 0, done.output
    assert "4 → 1" in done.stdout
    assert len(list(storage.list("data"))) == 1
    pd.testing.assert_frame_equal(rows_of(output), before)
    commit(committer, scene_at(0, updated="2024-05-01T00:00:00Z"), 2)
    write_snapshot(storage)
    assert len(rows_of(output)) == len(before) - 7
    assert geosweep("catalog", "validate", output, "--offline").exit_code == 0
    assert "nothing to do" not in geosweep("catalog", "compact", output).stdout
    assert "nothing to do" in geosweep("catalog", "compact", output).stdout
    assert len(rows_of(output)) == len(before) - 7
