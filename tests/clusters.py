"""A cluster of several nodes with small object stores on this machine, as a program of its own.

A process can be in one Ray cluster only, and the tests share theirs, so `test_multinode.py` starts this
one aside: ``python -m tests.clusters FOLDER`` writes what it saw to ``FOLDER/seen.json``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster

from geosweep.pipeline import Result, run
from tests.detectors import paint_patches
from tests.rasters import write_raster
from tests.scenes import job_over, painted_scene

SMALL_STORE = 100 * 2**20
SCENES = 8
BIG_SIDE = 6400
CROPS = {"model": "tests.cropmodels:large", "batch_size": 16}
TWO_MODELS = [CROPS, CROPS | {"name": "second"}]


def scenes(folder: Path) -> list[Path]:
    """The painted scenes, which test and cluster make alike."""
    return [painted_scene(folder, number) for number in range(SCENES)]


def big_scene(folder: Path, name: str, **profile: Any) -> Path:
    """A raster of more bytes than a small object store, full of patches; it compresses well."""
    data = np.full((3, BIG_SIDE, BIG_SIDE), 100, np.uint8)
    starts = range(20, BIG_SIDE - 60, 140)
    paint_patches(data, [(x, y, x + 40, y + 40) for x in starts for y in starts])
    return write_raster(folder / name, data, compress="DEFLATE", **profile)


def patches_in_big_scene() -> int:
    """How many must be found."""
    return len(range(20, BIG_SIDE - 60, 140)) ** 2


def seen_in(result: Result) -> dict[str, Any]:
    """What a run found, as JSON."""
    rows = result.to_geopandas().sort_values("detection_id")
    return {
        "counts": result.counts,
        "failures": [failure.error for failure in result.failures],
        "ids": list(rows.detection_id),
        "geometry": [shape.wkb_hex for shape in rows.geometry],
    }


def spilled() -> int:
    """Bytes that the object stores of all nodes have spilled to disk so far."""
    total = 0
    for node in ray.nodes():
        if node["Alive"]:
            stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
            total += stats.store_stats.spilled_bytes_total
    return total


def main(folder: Path) -> None:
    """Run one job after the other, and note what came of each."""
    seen: dict[str, Any] = {}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": SMALL_STORE,
        },
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=SMALL_STORE, wait=False)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        rasters = scenes(folder)
        result = run(job_over(rasters, folder / "two"), progress=False)
        seen["two nodes"] = seen_in(result) | {"devices": result.devices}

        fine = big_scene(folder, "fine.tif", driver="COG", blocksize=512)
        job = job_over([fine], folder / "big", crop_models=TWO_MODELS)
        detector = job.detector.model_copy(update={"batch_size": 32})
        job = job.model_copy(update={"detector": detector})
        result = run(job, progress=False)
        seen["big scene"] = {"counts": result.counts, "spilled": spilled()}

        bare = big_scene(folder, "bare.tif", tiled=True, blockxsize=512, blockysize=512)
        job = job_over([bare], folder / "coarse", windows={"resolution": 0.6})
        result = run(job, progress=False)
        seen["coarse windows"] = {"counts": result.counts, "spilled": spilled()}

        held = [ray.put(np.zeros(SMALL_STORE // 4, np.uint8)) for _ in range(6)]
        seen["too much"] = {"objects": len(held), "spilled": spilled()}
    finally:
        (folder / "seen.json").write_text(json.dumps(seen))
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    main(Path(sys.argv[1]))
