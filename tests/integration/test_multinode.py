"""Several nodes: same rows, and no spilling of a small object store."""

import pytest

from geosweep.pipeline import run
from tests.aside import seen_aside
from tests.clusters import patches_in_big_scene, scenes, seen_in
from tests.scenes import assert_sums, job_over

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the runs on a cluster of three nodes came to."""
    return seen_aside("tests.clusters", tmp_path_factory.mktemp("cluster"))


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
