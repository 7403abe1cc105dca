"""What a run does while the nodes that it wants aren't there."""

import time

import pytest
import ray
from ray.util.placement_group import placement_group_table

from geosweep.actors import Seats, seat, seats
from geosweep.actors.demand import Demand
from geosweep.catalog.errors import ClusterError
from geosweep.pipeline import run
from geosweep.pipeline.settings import Settings
from tests.scenes import job_over, painted_scene

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def groups():
    """States of the placement groups that are there."""
    states = [group["state"] for group in placement_group_table().values()]
    return sorted(state for state in states if state != "REMOVED")


def free_cpus():
    return ray.available_resources().get("CPU", 0.0)


def eventually(tell, answer):
    """Ray's table of nodes follows what it does by some seconds."""
    end = time.monotonic() + 30
    while tell() != answer and time.monotonic() < end:
        time.sleep(0.05)
    return tell() == answer


def test_spare_room_on_known_nodes_is_not_what_is_wanted():
    node = ray.get_runtime_context().get_node_id()
    demand = Demand("CPU")
    try:
        demand.hold(1, [])
        assert eventually(groups, ["CREATED"])
        assert eventually(free_cpus, 1.0)
        demand.hold(1, [])
        assert groups() == ["CREATED"]
        # Now somebody works here: the CPU is his, and others are still wanted.
        demand.hold(2, [node])
        assert eventually(groups, ["PENDING", "PENDING"])
        assert eventually(free_cpus, 2.0)
        demand.hold(1, [node])
        assert groups() == ["PENDING"]
    finally:
        demand.end()
    assert groups() == []


def test_the_autoscaler_is_waited_for_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(seats, "AUTOSCALE_SECONDS", 0.6)
    raster = painted_scene(tmp_path, 0)
    job = job_over([raster], tmp_path / "out", cluster={"autoscale": {"gpus": 3}})
    with pytest.raises(ClusterError, match=r"No node with a GPU came within .* asks for 3; see in"):
        run(job, progress=False)
    assert groups() == []


def test_a_cluster_that_nobody_can_join_is_not_waited_for(tmp_path):
    job = job_over([tmp_path / "a.tif"], tmp_path / "out", cluster={"autoscale": {"gpus": 1}})
    with pytest.raises(ClusterError, match="this machine has none, and no node can join"):
        Seats(Settings.resolve(job), alone=True).open(None)


def test_actors_that_find_no_room_end_a_run_that_has_no_other_node(tmp_path, monkeypatch):
    monkeypatch.setattr(seat, "START_SECONDS", 2.0)

    @ray.remote(num_cpus=2)
    class Other:
        def stands(self):
            return True

    other = Other.remote()
    assert ray.get(other.stands.remote())
    job = job_over([painted_scene(tmp_path, 0)], tmp_path / "out")
    with pytest.raises(ClusterError, match=r"no room for the detectors within .* lower cluster"):
        run(job, progress=False)
    ray.kill(other)
