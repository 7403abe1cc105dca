"""Several nodes: same rows, nothing lost with a node or an actor, and no spilling of a small store."""

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


def assert_complete(found, clean, number=8):
    assert found["failures"] == []
    assert found["counts"]["succeeded"] == number
    assert len(set(found["ids"])) == len(found["ids"])
    assert_sums(found["counts"])
    if number == 8:
        assert sorted(found["geometry"]) == sorted(clean["geometry"])
    else:
        assert set(found["geometry"]) < set(clean["geometry"])


def test_two_coordinators_give_the_rows_of_one_process(seen, clean):
    found = seen["two nodes"]
    assert found["devices"] == ["cpu", "cpu"]
    assert found["ids"] == clean["ids"]
    assert found["geometry"] == clean["geometry"]
    for counts in (found["counts"], clean["counts"]):
        counts.pop("source_duplicates")
    assert found["counts"] == clean["counts"]


def test_a_node_lost_in_the_middle_costs_no_row(seen, clean):
    assert_complete(seen["node lost"], clean)


def test_a_reader_and_a_coordinator_killed_cost_no_row(seen, clean):
    assert_complete(seen["actors killed"], clean, number=5)


def test_a_scene_larger_than_the_object_store_is_not_spilled(seen):
    found = seen["big scene"]
    assert found["counts"]["detections"] == patches_in_big_scene()
    assert found["spilled"] == 0


def test_windows_far_finer_than_asked_for_are_not_spilled(seen):
    found = seen["coarse windows"]
    assert found["counts"]["windows_processed"] == found["counts"]["windows"] == 9
    assert found["spilled"] == 0
    # The meter works: this much does not fit.
    assert seen["too much"]["spilled"] > 0
