"""A node's pools on a real cluster: they grow, share a GPU, borrow readers, and change no row."""

import pytest

from geosweep.catalog import open_storage
from geosweep.pipeline import run
from geosweep.pipeline.driver import RayEngine
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.runner import claim
from geosweep.pipeline.settings import Settings
from tests.aside import seen_aside
from tests.clusters import seen_in
from tests.lenders import BATCH, SCENES, job_of
from tests.scenes import HEIGHT, WIDTH, assert_sums, job_over, painted_scene
from tests.servers import range_server

pytestmark = pytest.mark.ray

WINDOWS = 12
SCENE_BYTES = 3 * WIDTH * HEIGHT
WINDOW_BYTES = 3 * 400 * 400
SLACK = 1.1


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a coordinator did that lost one lender, and had another withdrawn."""
    return seen_aside("tests.lenders", tmp_path_factory.mktemp("lenders"))


def test_pools_start_small_and_grow_with_what_waits(seen):
    assert seen["at first"] == {"readers": 1, "detectors": 1, "croppers": 1, "classifiers": 1}
    assert seen["grown"] == {"readers": 3, "detectors": 2, "croppers": 2, "classifiers": 2}
    assert seen["at last"] == {"readers": 1, "detectors": 2, "croppers": 2, "classifiers": 2}


def test_two_detectors_and_two_classifiers_share_one_gpu_and_give_it_back(seen):
    assert seen["devices"] == ["pretended"]
    assert seen["GPUs in use"] == pytest.approx(1.0)
    assert seen["GPUs returned"] == 1.0


def test_lent_readers_read_and_pixels_cross_the_network_once(seen):
    assert seen["with lenders"]["readers"] == 3
    assert min(seen["lent bytes"]) >= WINDOW_BYTES * BATCH
    found = seen["bytes"]
    # What is decoded comes into the store as windows, which overlap.
    windows = found["decoded"] * WINDOWS * WINDOW_BYTES / SCENE_BYTES
    assert SCENES * WINDOWS * WINDOW_BYTES <= found["at home"] <= SLACK * windows
    assert seen["spilled"] == 0


def test_losing_a_lender_or_having_it_withdrawn_costs_no_row_and_blames_no_scene(seen, tmp_path):
    clean = seen_in(run(job_of(tmp_path, "local"), engine="local", progress=False))
    found = seen["found"]
    assert seen["statuses"] == ["succeeded"] * SCENES
    assert seen["blamed"] == 0
    assert found["failures"] == []
    assert found["ids"] == clean["ids"]
    assert found["geometry"] == clean["geometry"]
    assert found["counts"]["crops"] == clean["counts"]["crops"] > 0
    assert_sums(found["counts"])


@pytest.mark.usefixtures("ray_cluster")
def test_a_reader_is_added_when_detectors_have_nothing_to_do_while_scenes_wait(tmp_path):
    (tmp_path / "rasters").mkdir()
    names = [painted_scene(tmp_path / "rasters", number).name for number in range(12)]
    with range_server(tmp_path / "rasters") as server:
        rasters = [f"{server}/{name}" for name in names]
        job = job_over(rasters, tmp_path / "ray", cluster={"readers": {"min": 1, "max": 2}})
        settings, storage = Settings.resolve(job), open_storage(job.output.path)
        plan = ScenePlan(job, settle_plan(job, storage))
        claim(storage, settings, overwrite=False)
        seen = []

        def note(activity):
            if activity.actors:
                seen.append(activity.actors["readers"])
                if seen[-1] == 2:
                    server.latency = 0.0

        with RayEngine(settings, storage, on_activity=note) as engine:
            server.latency = 1.0
            outcomes = list(engine.sweep(plan.tasks()))
        server.latency = 0.0
        assert [outcome.status for outcome in outcomes] == ["succeeded"] * len(names)
        assert (seen[0], seen[-1]) == (1, 2)
        found = run(job, engine="local", progress=False)
        clean = run(job_over(rasters, tmp_path / "local"), engine="local", progress=False)
    rows, same = (result.to_arrow().sort_by("detection_id") for result in (found, clean))
    assert rows.equals(same)
    assert_sums(found.counts)
