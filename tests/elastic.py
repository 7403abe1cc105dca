"""A cluster whose nodes come and go as its autoscaler likes, as a program of its own.

The autoscaler is Ray's, and its nodes are real, but for being processes of this machine with pretended
GPUs. ``python -m tests.elastic FOLDER`` writes what it saw to ``FOLDER/seen.json``.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private.state import actors
from ray.util.placement_group import placement_group, placement_group_table

from geosweep.pipeline import Job, run
from tests.clusters import seen_in
from tests.rayhead import ROOT, free_ports
from tests.scenes import painted_scene
from tests.waiting import BROKEN, FOLDER

SCENES = 10
"""More than the nodes that detect can take, so that one that comes last is still wanted."""
PATIENCE = 120.0
STORE = 100 << 20
HEAD_ID = "f" * 51 + "00000"
"""Ray's own for the head of such a cluster."""
HELPER = {"CPU": 4, "object_store_memory": STORE}
WORKER = {"CPU": 2, "GPU": 1, "object_store_memory": STORE}
KINDS = {
    "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
    "gpu": {"resources": WORKER, "node_config": {}, "min_workers": 0, "max_workers": 2},
    "reads": {"resources": HELPER, "node_config": {}, "min_workers": 0, "max_workers": 1},
    # Best fit who asks for what nobody else has.
    "later": {
        "resources": WORKER | {"later": 1},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 1,
    },
    "broken": {
        "resources": WORKER | {BROKEN: 1},
        "labels": {BROKEN: "true"},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 1,
    },
}


def job(folder: Path) -> Job:
    """Scenes of which one takes until the others are done, on GPUs that aren't there yet."""
    rasters = [painted_scene(folder, number, poison=number == 0) for number in range(SCENES)]
    return Job.from_dict(
        {
            "source": {"rasters": [str(path) for path in rasters]},
            "detector": {"model": "tests.waiting:waiting"},
            "output": {"path": str(folder / "out")},
            "cluster": {"autoscale": {"gpus": 2}, "reader_nodes": True},
        }
    )


@contextmanager
def autoscaling_head(folder: Path, notes: Path) -> Iterator[str]:
    """A head without CPUs and its autoscaler; gives the address. All that was started is ended."""
    gcs, client = free_ports(2)
    address = f"{ray.util.get_node_ip_address()}:{gcs}"
    commands = ("initialization", "setup", "head_setup", "worker_setup")
    commands = (*commands, "head_start_ray", "worker_start_ray")
    config = {f"{name}_commands": [] for name in commands} | {
        "cluster_name": "pretended",
        "max_workers": 5,
        "upscaling_speed": 100,
        "idle_timeout_minutes": 0.1,
        "provider": {
            # Its defaults, which any other type wants, are not in Ray's wheel.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
        },
        "available_node_types": KINDS,
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "cluster_synced_files": [],
        "rsync_exclude": [],
        "rsync_filter": [],
    }
    (folder / "config.json").write_text(json.dumps(config))
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        FOLDER: str(notes),
    }
    command = [
        *("ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "0"),
        *("--port", str(gcs), "--ray-client-server-port", str(client)),
        *("--include-dashboard", "false", "--dashboard-agent-listen-port", "0"),
        *("--metrics-export-port", "0", "--object-store-memory", str(STORE)),
        *("--temp-dir", os.environ["RAY_TMPDIR"]),
        *("--autoscaling-config", str(folder / "config.json")),
    ]
    with (folder / "head.log").open("w") as log:
        head = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield address
        finally:
            started = head.children(recursive=True)
            head.terminate()
            with suppress(psutil.TimeoutExpired):
                head.wait(10)
            for process in [head, *started]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def join(address: str) -> None:
    """Connect, once the head is up."""
    host, port = address.split(":")
    wait_until(lambda: _listens(host, int(port)), PATIENCE)
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)


def _listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def wait_until(true: Callable[[], Any], seconds: float) -> bool:
    """Whether it came to be so in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def living() -> list[dict[str, Any]]:
    """Nodes, but for the head."""
    return [node for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]


def reads_elsewhere() -> bool:
    """Whether a reader on a node without a GPU has a scene open."""
    bare = {node["NodeID"] for node in living() if "GPU" not in node["Resources"]}
    for actor in actors().values():
        if actor["ActorClassName"] == "Reader" and actor["Address"]["NodeID"] in bare:
            with suppress(psutil.Error):
                files = psutil.Process(actor["Pid"]).open_files()
                if any(file.path.endswith(".tif") for file in files):
                    return True
    return False


def used_gpus() -> float:
    """GPUs that actors have."""
    return ray.cluster_resources().get("GPU", 0.0) - ray.available_resources().get("GPU", 0.0)


def gpus_wanted() -> int:
    """Placement groups that hold a GPU, or wait for one."""
    groups = placement_group_table().values()
    return sum("GPU" in group["bundles"][0] for group in groups if group["state"] != "REMOVED")


def main(folder: Path) -> None:
    """Let a run ask for nodes, give it others besides, and see them all go."""
    notes = folder / "notes"
    notes.mkdir()
    seen: dict[str, Any] = {}
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("geosweep").addHandler(handler)
    logging.getLogger("geosweep").setLevel(logging.INFO)

    def noted() -> int:
        return len(list(notes.glob("node-*")))

    def direct() -> None:
        seen["two asked for"] = wait_until(lambda: noted() == 2, PATIENCE)
        others = [placement_group([{what: 1}]) for what in ("later", BROKEN)]
        others.append(placement_group([{"CPU": HELPER["CPU"]}]))
        seen["one joined"] = wait_until(lambda: noted() == 3, PATIENCE)
        seen["left out"] = wait_until(lambda: any("is left out" in line for line in said), PATIENCE)
        seen["read elsewhere"] = wait_until(reads_elsewhere, PATIENCE)
        for group in others:
            ray.util.remove_placement_group(group)
        (notes / "go").touch()
        seen["one works on"] = wait_until(lambda: used_gpus() == 1, PATIENCE)
        seen["items then"] = len(list((folder / "out" / "items").glob("*.json")))
        (notes / "end").touch()

    with autoscaling_head(folder, notes) as address:
        join(address)
        try:
            director = threading.Thread(target=direct, daemon=True)
            director.start()
            result = run(job(folder), progress=False)
            seen["wanted after"] = gpus_wanted()
            director.join()
            seen["run"] = seen_in(result) | {"devices": result.devices}
            seen["nodes gone"] = wait_until(lambda: not living(), PATIENCE)
        finally:
            seen["said"] = said
            (folder / "seen.json").write_text(json.dumps(seen))
            ray.shutdown()


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    main(Path(sys.argv[1]))
