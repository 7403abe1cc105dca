"""Whatever is lost in the middle of a run: each row once, the sums of the plan, nothing kept back.

All stories are played on one cluster of two nodes with pretended GPUs (`tests.losses`). Processes are
killed while a call is held in them, so no test depends on how fast this machine is.
"""

import pytest

from tests.aside import seen_aside
from tests.losses import SCENES
from tests.scenes import assert_sums

pytestmark = pytest.mark.ray

STORIES = ("models", "shells", "windows", "driver", "node")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What came of all stories."""
    return seen_aside("tests.losses", tmp_path_factory.mktemp("losses"))


def assert_complete(found, clean):
    """As a run in one process, in which nothing is lost."""
    assert found["rows"] == clean["rows"]
    assert found["number"] == found["ids"] == clean["number"] > 200
    assert found["failures"] == {}
    for counts in (found["counts"], clean["counts"]):
        assert_sums(counts)
    passing = ("scenes_now", "windows_now")
    without = [
        {k: v for k, v in each["counts"].items() if k not in passing} for each in (found, clean)
    ]
    assert without[0] == without[1]
    assert found["counts"]["succeeded"] == SCENES


@pytest.mark.parametrize("story", STORIES)
def test_all_resources_are_given_back(seen, story):
    assert seen[story]["rest"] == {"missing": {}, "alive": []}


def test_what_is_not_given_back_would_be_seen(seen):
    assert seen["held"]["missing"]["stored bytes"] > 10**7
    assert seen["held"]["alive"] == ["_Idle"]


def test_a_detector_and_a_classifier_killed_in_the_middle_of_a_batch(seen):
    assert_complete(seen["models"], seen["nothing"]["crops"])


def test_a_coordinator_and_a_reader_killed_at_work(seen):
    assert_complete(seen["shells"], seen["nothing"]["plain"])


def test_a_node_killed_in_the_middle_of_a_scene(seen):
    assert_complete(seen["node"], seen["nothing"]["plain"])


def test_a_killed_driver_leaves_nothing_running_and_the_command_goes_on(seen):
    found = seen["driver"]
    assert found["signal"] == 9
    assert found["rest when killed"] == {"missing": {}, "alive": []}
    assert 2 <= found["before"] < SCENES
    assert found["rewritten"] == []
    assert_complete(found, seen["nothing"]["plain"])


def test_two_runs_of_a_job_at_once_end_well_and_write_each_row_once(seen):
    found = seen["driver"]
    assert found["codes"] == [0, 0]
    # Both were at work on what the killed one had left, at the same time.
    assert all(0 < now <= SCENES - found["before"] for now in found["now"])
    assert_complete(found, seen["nothing"]["plain"])


def test_what_kills_or_overfills_each_process_costs_its_own_scene_only(seen):
    """A window that kills detectors, one that no memory is enough for, a raster that kills readers."""
    found = seen["windows"]
    assert found["deaths"] == "xxxx"
    assert found["readers killed"] == 3
    assert sorted(found["failures"]) == ["scene90", "scene91", "scene92"]
    assert "ended its detector's process 4 times" in found["failures"]["scene90"]
    assert found["failures"]["scene91"] == (
        "The detector tests/mortal ran out of memory even with one of its windows at a time (CUDA error: "
        "out of memory); choose smaller windows, another GPU, or fewer detectors on each."
    )
    assert found["failures"]["scene92"].startswith("Its reader's process died 3 times")
    assert found["counts"]["windows_failed"] == 36
    assert_sums(found["counts"])
    clean = seen["nothing"]["plain"]["rows"]
    assert found["rows"] == {name: clean[name] for name in sorted(clean)[: SCENES - 1]}
    assert found["number"] == found["ids"]


def test_out_of_memory_halves_batches_and_the_report_says_so(seen):
    halvings = seen["windows"]["halvings"]["detector tests/mortal"]
    assert halvings["times"] >= 2
    assert halvings["batch_size"] in (1, 2)
    crops = seen["models"]["halvings"]["crop model cropmodel"]
    assert crops["times"] >= 1
    assert crops["batch_size"] <= 8
    assert all(seen[story]["halvings"] == {} for story in ("shells", "driver", "node"))
