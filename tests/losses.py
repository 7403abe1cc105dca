"""A cluster of two nodes with pretended GPUs that loses one thing after the other, as a program.

`test_losses.py` starts it aside, as `tests.clusters` says: ``python -m tests.losses FOLDER`` writes what
it saw to ``FOLDER/seen.json``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
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
import yaml
from ray.cluster_utils import Cluster

from geosweep.pipeline import Job, run
from geosweep.pipeline.reported import reported
from tests.mortal import VARIABLE, Gate
from tests.remains import rest, seen_in
from tests.scenes import job_over, painted_scene
from tests.servers import range_server

SCENES = 6
STORE = 100 * 2**20
NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": STORE}
PATIENCE_SECONDS = 300
DETECTOR = {"model": "tests.mortal:mortal", "batch_size": 3}
CROPS = [{"model": "tests.mortal:crop_model", "batch_size": 16, "scores": True}]
ROOT = Path(__file__).parents[1]


def kill(pids: list[int]) -> None:
    """End the first of some processes as the kernel does when memory is short."""
    os.kill(pids[0], signal.SIGKILL)


def processes(kind: str) -> list[psutil.Process]:
    """The actors of a kind, on all nodes."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(f"ray::{kind}"[:15]):
                found.append(process)
    return found


def kill_coordinator_and_reader(_: list[int]) -> None:
    """The one on one node, the other on the other."""
    coordinator = processes("Coordinator")[0]
    node = coordinator.parent()
    reader = next(each for each in processes("Reader") if each.parent() != node)
    coordinator.kill()
    reader.kill()


@contextmanager
def held(
    gate: Gate, act: Callable[[list[int]], None], *, number: int = 1, under: int | None = None
) -> Iterator[None]:
    """During a run, do something with those who stand at a gate, and open it.

    Parameters
    ----------
    number
        How many must stand there.
    under
        Process that they must descend from.
    """
    failure: list[BaseException] = []

    def watch() -> None:
        try:
            end = time.monotonic() + PATIENCE_SECONDS
            while len(pids := _descendants(gate.held(), under)) < number:
                if time.monotonic() > end:
                    raise TimeoutError(f"{len(pids)} of {number} stand at {gate}")
                time.sleep(0.02)
            act(pids)
        except BaseException as error:
            failure.append(error)
        finally:
            gate.open()

    gate.shut()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    thread.join()
    if failure:
        raise failure[0]


def _descendants(pids: list[int], of: int | None) -> list[int]:
    if of is None:
        return pids
    return [pid for pid in pids if of in [each.pid for each in psutil.Process(pid).parents()]]


class Losses:
    """The stories; each gives what came of it.

    Parameters
    ----------
    folder
        For rasters and outputs.
    cluster, doomed
        The cluster, and the node that it will lose.
    """

    def __init__(self, folder: Path, cluster: Cluster, doomed: Any) -> None:
        self._folder, self._cluster, self._doomed = folder, cluster, doomed
        self._rasters = [painted_scene(folder, number) for number in range(SCENES)]

    def play(self) -> dict[str, Any]:
        """All of them, the loss of a node last."""
        return {
            "nothing": self._nothing(),
            "models": self._models(),
            "shells": self._shells(),
            "windows": self._windows(),
            "driver": self._driver(),
            "node": self._node(),
            "held": self._held(),
        }

    def _job(self, name: str, **blocks: Any) -> Job:
        return job_over(self._rasters, self._folder / name, **{"detector": DETECTOR} | blocks)

    def _gate(self, name: str, after: int = 0, kind: str = "detect") -> Gate:
        return Gate(kind, self._folder / name / "items", after)

    def _run(self, job: Job) -> dict[str, Any]:
        seen = seen_in(run(job, progress=False))
        return seen | {"rest": rest()}

    def _nothing(self) -> dict[str, Any]:
        """The same jobs in this process, where no model is held or deadly."""
        plain = run(self._job("plain"), engine="local", progress=False)
        crops = run(self._job("crops", crop_models=CROPS), engine="local", progress=False)
        return {"plain": seen_in(plain), "crops": seen_in(crops)}

    def _models(self) -> dict[str, Any]:
        """A detector dies in the middle of a batch, a classifier in the middle of another."""
        with (
            held(self._gate("models"), kill),
            held(self._gate("models", kind="classify"), kill),
        ):
            return self._run(self._job("models", crop_models=CROPS))

    def _shells(self) -> dict[str, Any]:
        """A coordinator dies while its detector is at work, and a reader on the other node."""
        with held(self._gate("shells"), kill_coordinator_and_reader):
            return self._run(self._job("shells"))

    def _windows(self) -> dict[str, Any]:
        """A window that is the death of each detector, one that no memory is enough for, and a raster
        that is the death of each reader.
        """
        rasters = [
            painted_scene(self._folder, 90, poison=True),
            painted_scene(self._folder, 91, glut=True),
            *self._rasters[:-1],
        ]
        apart = self._folder / "apart"
        apart.mkdir()
        deadly, killed = painted_scene(apart, 92), []

        def kill_reader(port: int) -> None:
            for reader in processes("Reader"):
                with suppress(psutil.NoSuchProcess):
                    if any(port == each.laddr.port for each in reader.net_connections("tcp")):
                        reader.kill()
                        killed.append(reader.pid)

        detector = DETECTOR | {"batch_size": 8}
        with range_server(apart) as server:
            server.on_request = kill_reader
            url = f"{server.url}/{deadly.name}"
            job = job_over([url, *rasters], self._folder / "windows", detector=detector)
            seen = self._run(job)
        deaths = (Path(os.environ[VARIABLE]) / "deaths").read_text()
        return seen | {"deaths": deaths, "readers killed": len(set(killed))}

    def _driver(self) -> dict[str, Any]:
        """The driver is killed; then two are started at once, and go on side by side."""
        file, items = self._folder / "job.yaml", self._folder / "driver" / "items"
        # One scene at a time on each node, so that some are still to be begun when two are done.
        cluster = {"detectors": {"max": 1, "num_gpus": 0.5}, "scenes_in_flight": 1}
        job = self._job("driver", cluster=cluster)
        file.write_text(yaml.safe_dump(job.to_public_dict()))
        with held(self._gate("driver", 2), lambda _: driver.kill()):
            driver = self._command(file)
            driver.communicate()
        left = rest()
        before = {path.name: path.stat().st_mtime_ns for path in items.glob("*.json")}
        # The gate stays shut until a detector of each, on each node, is at work.
        with held(self._gate("driver"), lambda _: None, number=4):
            twins = [self._command(file) for _ in range(2)]
            said = [twin.communicate()[0] for twin in twins]
        report = json.loads((self._folder / "driver" / "run.json").read_text())
        return seen_in(reported(report)) | {
            "signal": -driver.returncode,
            "before": len(before),
            "rewritten": [n for n, at in before.items() if (items / n).stat().st_mtime_ns != at],
            "codes": [twin.returncode for twin in twins],
            "now": [int(re.search(r"(\d+) done now", text)[1]) for text in said],
            "rest when killed": left,
            "rest": rest(),
        }

    def _command(self, file: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "geosweep.pipeline", "run", str(file)),
                *("--address", self._cluster.address),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _node(self) -> dict[str, Any]:
        """A node goes while its detector is at work."""
        raylet = self._doomed.all_processes["raylet"][0].process.pid

        def remove(_: list[int]) -> None:
            self._cluster.remove_node(self._doomed, allow_graceful=False)

        with held(self._gate("node"), remove, under=raylet):
            return self._run(self._job("node"))

    def _held(self) -> dict[str, Any]:
        """What `rest` says when something is not given back."""
        kept = [ray.put(bytes(10**7))]
        actor = ray.remote(_Idle).remote()
        ray.get(actor.__ray_ready__.remote())
        return rest(patience=5) | {"objects": len(kept)}


class _Idle:
    """An actor that nobody ends."""


def main(folder: Path) -> None:
    """Start the cluster, play all stories, and write what was seen."""
    gates = folder / "gates"
    gates.mkdir()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    os.environ[VARIABLE] = str(gates)
    cluster = Cluster(initialize_head=True, head_node_args=head)
    doomed = [cluster.add_node(**NODE, wait=False) for _ in range(2)][1]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        seen = Losses(folder, cluster, doomed).play()
        (folder / "seen.json").write_text(json.dumps(seen))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
