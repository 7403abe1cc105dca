"""The command line, as a user runs it: in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from geosweep.catalog import Records, open_storage
from geosweep.pipeline import Job, run
from tests.detectors import HURRY, grey
from tests.rasters import write_raster
from tests.scenes import assert_sums, job_over, painted_scene

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

HEARS_INTERRUPTS = """
import runpy, signal
# Shells have what they start in the background ignore SIGINT, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("geosweep.pipeline", run_name="__main__")
"""


def geosweep(*arguments, cwd=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "geosweep.pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": REPO, "COLUMNS": "120"},
        timeout=300,
        check=False,
        **options,
    )


def write_job(path, job):
    path.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))
    return path


def test_detect_writes_a_dataset_that_geopandas_reads(tmp_path):
    raster = painted_scene(tmp_path, 0)
    done = geosweep("detect", raster, "-o", tmp_path / "out", "--detector", "tests.detectors:paint")
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    (file,) = (tmp_path / "out" / "data").glob("*.parquet")
    frame = gpd.read_parquet(file)
    assert len(frame) == 54
    assert frame.crs == "EPSG:4326"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["detections"] == 54


def test_detect_takes_a_folder_and_a_bbox(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        painted_scene(folder, number)
    whole = run(job_over([folder], tmp_path / "whole"), engine="local", progress=False)
    frame = whole.to_geopandas()
    west, south, east, north = frame[frame.scene_id == "scene0"].total_bounds
    middle = (west + east) / 2
    bbox = f"{west - 1},{south - 1},{middle},{north + 1}"
    done = geosweep(
        "detect",
        folder,
        "-o",
        tmp_path / "out",
        "--detector",
        "tests.detectors:paint",
        "--bbox",
        bbox,
    )
    assert done.returncode == 0, done.stderr
    records = list(Records(open_storage(tmp_path / "out")).all())
    assert [record.scene.id for record in records] == ["scene0"]
    found = gpd.read_parquet(tmp_path / "out" / records[0].data)
    expected = frame[(frame.scene_id == "scene0") & (frame.centroid.x <= middle)]
    assert len(found) == len(expected) > 5
    counts = records[0].counts
    assert counts["windows_skipped_aoi"] > 0
    assert counts["windows"] == counts["windows_processed"] + counts["windows_skipped_aoi"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], ["nowhere.yaml", "can't be read"]),
        (["run", "bad.yaml"], ["bad.yaml", "detectr", "detector"]),
        (["run", "nomodel.yaml"], ["no-such-model"]),
        (["run", "nosource.yaml"], ["missing-items.json"]),
        (["detect", "x.tif", "-o", "out", "--bbox", "1,2,3"], ["--bbox", "1,2,3"]),
        (["detect", "x.tif", "-o", "out", "--window", "7"], ["windows.size", "7"]),
        (["detect", "x.tif", "-o", "file.txt"], ["file.txt"]),
        (["models", "show", "geosweep/nothing"], ["geosweep/nothing"]),
        (["map", "empty-folder"], ["empty-folder"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, arguments, words):
    base = {"source": {"rasters": ["x.tif"]}, "output": {"path": "out"}}
    for name, content in {
        "bad.yaml": base | {"detectr": {}},
        "nomodel.yaml": base | {"detector": {"model": "no-such-model"}},
        "nosource.yaml": base | {"source": {"stac": "missing-items.json"}},
    }.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    (tmp_path / "file.txt").write_text("in the way")
    (tmp_path / "empty-folder").mkdir()
    write_raster(tmp_path / "x.tif", grey(100, 100))
    done = geosweep(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    said = [line for line in done.stderr.splitlines() if line.startswith("geosweep: ")]
    assert len(said) == 1
    assert all(word in said[0] for word in words), said


def test_failed_scenes_give_exit_code_1_and_are_listed_then_retried_on_demand(tmp_path):
    good = painted_scene(tmp_path, 0)
    job = job_over([good, tmp_path / "late.tif"], tmp_path / "out")
    file = write_job(tmp_path / "job.yaml", job)
    done = geosweep("run", file, "--engine", "local")
    assert done.returncode == 1
    assert "failed: late:" in done.stderr
    # Present by now, but recorded as failed for another version of the file: it is simply new.
    write_raster(tmp_path / "late.tif", grey(500, 500))
    done = geosweep("run", file, "--engine", "local", "--retry-failed")
    assert done.returncode == 0, done.stderr
    status = {r.scene.id: r.status for r in Records(open_storage(tmp_path / "out")).all()}
    assert status == {"scene0": "succeeded", "late": "empty"}


@pytest.mark.ray
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_killed_run_goes_on_and_each_scene_stands_once(tmp_path, engine, monkeypatch):
    rasters = [painted_scene(tmp_path, number) for number in range(5)]
    file = write_job(tmp_path / "job.yaml", job_over(rasters, tmp_path / "out", detector="slow"))
    command = [sys.executable, "-m", "geosweep.pipeline", "run", str(file), "--engine", engine]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": REPO},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    items = tmp_path / "out" / "items"
    deadline = time.monotonic() + 120
    while not list(items.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    # The driver alone, as the kernel would: its actors may go on for a moment.
    process.kill()
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in items.glob("*.json")}
    assert len(before) >= 1
    assert not (tmp_path / "out" / "run.json").exists()

    monkeypatch.setenv(HURRY, "1")
    done = geosweep("run", file, "--engine", engine)
    assert done.returncode == 0, done.stderr
    records = list(Records(open_storage(tmp_path / "out")).all())
    assert sorted(record.scene.id for record in records) == [f"scene{n}" for n in range(5)]
    after = {path.name: path.stat().st_mtime_ns for path in items.glob("*.json")}
    assert all(after[name] == stamp for name, stamp in before.items())
    # Every file in the output belongs to one record, and no row stands twice.
    files = sorted(
        path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("data/*.parquet")
    )
    assert [str(path) for path in files] == sorted(record.data for record in records)
    ids = np.concatenate([pq.read_table(tmp_path / "out" / f)["detection_id"] for f in files])
    assert len(set(ids)) == len(ids) == sum(record.rows for record in records)
    fresh = run(job_over(rasters, tmp_path / "fresh"), engine="local", progress=False)
    assert len(ids) == fresh.counts["detections"]
    report = json.loads((tmp_path / "out" / "run.json").read_text())
    assert_sums(report["counts"])
    assert report["counts"]["windows"] == fresh.counts["windows"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_130_and_keeps_its_state(tmp_path, number, monkeypatch):
    rasters = [painted_scene(tmp_path, number) for number in range(4)]
    file = write_job(tmp_path / "job.yaml", job_over(rasters, tmp_path / "out", detector="slow"))
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_INTERRUPTS, "run", str(file), "--engine", "local"],
        env={**os.environ, "PYTHONPATH": REPO},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    items = tmp_path / "out" / "items"
    while not list(items.glob("*.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    monkeypatch.setenv(HURRY, "1")
    result = run(Job.from_yaml(file), engine="local", progress=False)
    assert result.counts["succeeded"] == 4


def test_plan_says_what_a_run_then_does(tmp_path):
    rasters = [painted_scene(tmp_path, number, step_m=60) for number in range(3)]
    job = job_over([*rasters, tmp_path / "missing.tif"], tmp_path / "out")
    file = write_job(tmp_path / "job.yaml", job)
    done = geosweep("plan", file, "--json", "--price-per-hour", "2", "--detectors", "4")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    result = run(job, engine="local", progress=False)
    assert plan["scenes"] == result.counts["scenes"] == 4
    assert plan["unreadable"] == 1
    for name in ("windows", "windows_skipped_owned", "windows_skipped_aoi"):
        assert plan[name] == result.counts[name]
    assert plan["windows_to_read"] == result.counts["windows_processed"]
    assert plan["hours"] == pytest.approx(
        plan["windows_to_read"] * plan["seconds_per_window"] / 3600 / 4
    )
    assert plan["cost"] == pytest.approx(plan["hours"] * 4 * 2)
    assert not (tmp_path / "out" / "data").exists() or result.counts["scenes_now"] == 4
    shown = geosweep("plan", file, "--no-measure")
    assert f"{plan['windows_to_read']} to read of {plan['windows']}" in shown.stdout


def test_models_are_listed_with_licence_and_accuracy():
    listed = geosweep("models", "list")
    assert listed.returncode == 0, listed.stderr
    assert "geosweep/tree" in listed.stdout
    assert "geosweep/alive-dead" in listed.stdout
    shown = geosweep("models", "show", "geosweep/tree")
    assert shown.returncode == 0, shown.stderr
    assert "licence" in shown.stdout
    assert "Held-out" in shown.stdout or "held-out" in shown.stdout


def test_the_command_answers_without_loading_torch_or_ray():
    code = "import sys, geosweep.pipeline.cli; print([m for m in ('torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
