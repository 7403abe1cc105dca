"""A coordinator whose pools grow and to which other nodes lend readers, as a program.

`test_pools_at_work.py` starts it aside, as `tests.clusters` says: ``python -m tests.lenders FOLDER``
writes what it saw to ``FOLDER/seen.json``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from geosweep.actors.coordinator import OPTIONS, Coordinator
from geosweep.catalog import open_storage
from geosweep.pipeline import Job, run
from geosweep.pipeline.activity import Activity
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.pools import ReaderNode, plan_pools
from geosweep.pipeline.runner import claim
from geosweep.pipeline.settings import Settings
from tests.clusters import seen_in, spilled
from tests.paced import VARIABLE
from tests.scenes import job_over, painted_scene

STORE = 100 * 2**20
SCENES = 6
BATCH = 3
POOL = {"min": 1, "max": 2}
CLUSTER = {
    "readers": 1,
    "detectors": POOL | {"num_gpus": 0.3},
    "croppers": POOL,
    "classifiers": POOL | {"num_gpus": 0.2},
}
CROPS = [{"model": "tests.paced:crop_model", "batch_size": 2, "scores": True}]
START_SECONDS = 120.0
HEAD = {
    "num_cpus": 0,
    "include_dashboard": False,
    "object_store_memory": STORE,
    # A node that is gone is missed after 2 s rather than 11.
    "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
}


class Watched(Coordinator):
    """A coordinator that also says how often it blamed a scene for the death of its reader."""

    async def blamed(self) -> int:
        """How often so far."""
        return self._staff.readers.deaths


def job_of(folder: Path, output: str) -> Job:
    """The job, whoever runs it."""
    rasters = [painted_scene(folder, number) for number in range(SCENES)]
    return job_over(
        rasters,
        folder / output,
        detector={"model": "tests.paced:detector", "batch_size": BATCH},
        crop_models=CROPS,
        cluster=CLUSTER,
    )


def created(node_id: str) -> int:
    """Bytes that ever came into a node's object store, from there or from elsewhere."""
    (node,) = [node for node in ray.nodes() if node["NodeID"] == node_id]
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
    return stats.store_stats.cumulative_created_bytes


def await_activity(actor: Any, fits: Callable[[Activity], bool]) -> Activity:
    """Ask a coordinator until its numbers fit."""
    end = time.monotonic() + START_SECONDS
    while not fits(found := ray.get(actor.progress.remote())):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def main(folder: Path) -> None:
    """Sweep all scenes, withdraw one lender, lose the other, and note what came of it."""
    os.environ[VARIABLE] = str(folder / "hurry")
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    home = cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=STORE)
    fickle = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    doomed = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        job = job_of(folder, "out")
        settings, storage = Settings.resolve(job), open_storage(job.output.path)
        plan = ScenePlan(job, settle_plan(job, storage))
        claim(storage, settings, overwrite=False)
        pools = plan_pools(job, cpus=2, gpus=1.0, store_bytes=STORE)
        here = NodeAffinitySchedulingStrategy(home.node_id, soft=False)
        remote: Any = ray.remote(Watched)
        actor = remote.options(scheduling_strategy=here, **OPTIONS).remote(
            settings, job.output.path, pools, BATCH
        )
        seen: dict[str, Any] = {"devices": ray.get(actor.ready.remote())}
        seen["at first"] = dict(ray.get(actor.progress.remote()).actors)
        lenders = [
            ReaderNode(fickle.node_id, readers=1, budget=STORE // 4),
            ReaderNode(doomed.node_id, readers=1, budget=1),
        ]
        actor.set_reader_nodes.remote(lenders)
        found = await_activity(actor, lambda now: now.actors["readers"] == 3)
        seen["with lenders"] = dict(found.actors)

        sweeps = [actor.sweep.remote(task) for task in plan.tasks()]
        grown = {"detectors": 2, "croppers": 2, "classifiers": 2}
        found = await_activity(actor, lambda now: grown.items() <= now.actors.items())
        seen["grown"] = dict(found.actors)
        seen["GPUs in use"] = 1 - ray.available_resources().get("GPU", 0)
        seen["lent bytes"] = [created(node.node_id) for node in (fickle, doomed)]
        cluster.remove_node(doomed)
        ray.get(actor.set_reader_nodes.remote(lenders[1:]))
        (folder / "hurry").touch()
        outcomes = ray.get(sweeps)
        ray.get(actor.set_reader_nodes.remote([]))  # the driver knows, too, by now
        seen["statuses"] = [outcome.status for outcome in outcomes]
        seen["blamed"] = ray.get(actor.blamed.remote())
        activity = ray.get(actor.progress.remote())
        seen["at last"] = dict(activity.actors)
        seen["bytes"] = {"decoded": activity.decoded_bytes, "at home": created(home.node_id)}
        seen["spilled"] = spilled()
        ray.kill(actor)
        end = time.monotonic() + START_SECONDS
        while ray.available_resources().get("GPU") != 1 and time.monotonic() < end:
            time.sleep(0.2)
        seen["GPUs returned"] = ray.available_resources().get("GPU")
        # All is on record, so that this run sums up what stands there.
        seen["found"] = seen_in(run(job, engine="local", progress=False))
    finally:
        ray.shutdown()
        cluster.shutdown()
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    main(Path(sys.argv[1]))
