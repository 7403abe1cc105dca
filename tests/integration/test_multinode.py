"""Several nodes: same rows, and no spilling of a small object store."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from geosweep.pipeline import run
from tests.clusters import patches_in_big_scene, scenes, seen_in
from tests.scenes import assert_sums, job_over

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the runs on a cluster of three nodes came to."""
    folder = tmp_path_factory.mktemp("cluster")
    # Ray's sockets need short paths, and its own folder keeps this cluster out of the others' sight.
    with tempfile.TemporaryDirectory(prefix="gs") as ray_folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.clusters", str(folder)],
            cwd=Path(__file__).parents[2],
            env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
            | {"RAY_TMPDIR": ray_folder},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "seen.json").read_text())


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The same scenes in this process."""
    folder = tmp_path_factory.mktemp("local")
    job = job_over(scenes(folder), folder / "out")
    return seen_in(run(job, engine="local", progress=False))


def test_two_coordinators_give_the_rows_of_one_process(seen, clean):
    found = seen["two nodes"]
    assert found["devices"] == ["cpu", "cpu"]
    assert found["ids"] == clean["ids"]
    assert found["geometry"] == clean["geometry"]
    for counts in (found["counts"], clean["counts"]):
        counts.pop("source_duplicates")
    assert found["counts"] == clean["counts"]


def test_a_scene_larger_than_the_object_store_is_not_spilled(seen):
    """Nor its crops for two crop models."""
    found = seen["big scene"]
    assert_sums(found["counts"])
    assert found["counts"]["crops"] >= 2 * patches_in_big_scene()
    assert found["counts"]["detections"] == patches_in_big_scene()
    assert found["spilled"] == 0


def test_windows_far_finer_than_asked_for_are_not_spilled(seen):
    found = seen["coarse windows"]
    assert found["counts"]["windows_processed"] == found["counts"]["windows"] == 9
    assert found["spilled"] == 0
    # The meter works: this much does not fit.
    assert seen["too much"]["spilled"] > 0
