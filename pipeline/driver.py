"""The Ray engine: starts or joins a cluster, sets a coordinator on each node, hands out scenes.

Scenes are handed out lazily, few at a time; the driver sees one small outcome for each.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    RayActorError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..actors import COORDINATOR_OPTIONS, Coordinator, cause_of
from ..catalog.errors import ClusterError, GeosweepError, JobError
from .activity import Activity
from .commit import Committer, SceneOutcome
from .failure import failed_counts
from .pools import PoolPlan, plan_pools

if TYPE_CHECKING:
    from ..catalog import Storage
    from .activity import OnActivity
    from .scene_reader import SceneTask
    from .settings import Settings

log = logging.getLogger("geosweep")

LOCAL_STORE_BYTES = 1 << 30
START_SECONDS = 300.0
SCENE_TRIES = 3
POLL_SECONDS = 0.5
LAST_POLL_SECONDS = 5.0
CLOSE_SECONDS = 2.0
"""Patience with coordinators at the end: for their last numbers, and until they are gone."""
_GONE = (RayActorError, ActorUnschedulableError)
"""What Ray raises for an actor that is dead, restarting, or whose node is gone."""


class RayEngine:
    """Sweeps scenes on a Ray cluster.

    Parameters
    ----------
    settings, storage
        The job and its output. Nodes open the output by its path, so it must be one they all see.
    address
        Cluster to join. None uses the one this process is connected to, or else starts a local one,
        which is stopped at the end; no other cluster ever is.
    on_activity
        Progress callback.

    Raises
    ------
    ClusterError
        If the cluster can't be reached, or has no room for the detectors within five minutes.
    JobError
        If the address is one of Ray Client or of a dashboard.
    """

    name = "ray"

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        *,
        address: str | None = None,
        on_activity: OnActivity | None = None,
    ) -> None:
        self._settings = settings
        self._committer = Committer(storage, settings)
        self._address = address
        self._on_activity = on_activity
        self._lost_activity = Activity()
        self._own_cluster = False
        self._coordinators: list[_Seat] = []
        self.devices: list[str] = []

    def __enter__(self) -> Self:
        self._connect()
        try:
            self._set_coordinators()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Return what was taken: the actors, and the cluster if it is ours."""
        with contextlib.suppress(Exception):
            closing = [seat.actor.close.remote() for seat in self._coordinators]
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for seat in self._coordinators:
            with contextlib.suppress(Exception):
                ray.kill(seat.actor)
        self._coordinators = []
        if self._own_cluster:
            ray.shutdown()

    def _connect(self) -> None:
        check_address(self._address, "--address")
        if ray.is_initialized():
            return
        address = self._address or os.environ.get("RAY_ADDRESS")
        check_address(address, "RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None:
            self._own_cluster = True
            options |= {
                "include_dashboard": False,
                "object_store_memory": LOCAL_STORE_BYTES,
                "address": "local",
            }
        else:
            options |= {"address": address}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except Exception as error:  # Ray raises a bare one where a node doesn't come up in time
            reason = str(error).split("\n", 1)[0].rstrip(".")
            raise ClusterError(
                f"The Ray cluster at {address or 'this machine'} can't be reached: {reason}; check the "
                "address and that the cluster is up."
            ) from error
        finally:
            # Ray puts its own in its place, which skips what a command says and how it ends.
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)

    def _set_coordinators(self) -> None:
        for node, plan in self._plan_nodes():
            batch = self._settings.batch_size("cuda" if plan.gpus else "cpu")
            remote: Any = ray.remote(Coordinator)
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            actor = remote.options(scheduling_strategy=here, **COORDINATOR_OPTIONS).remote(
                self._settings, self._settings.job.output.path, plan, batch
            )
            self._coordinators.append(_Seat(actor, plan.scenes))
        try:
            ready = ray.get(
                [seat.actor.ready.remote() for seat in self._coordinators], timeout=START_SECONDS
            )
        except GetTimeoutError:
            raise ClusterError(
                f"The cluster had no room for the detectors within {START_SECONDS:.0f} s; lower "
                "cluster.detectors in the job, or wait for other jobs to end."
            ) from None
        except RayTaskError as error:
            raise _told(error) from None
        except _GONE as error:
            raise ClusterError(f"The actors could not be started: {_first_line(error)}.") from error
        self.devices = sorted(device for devices in ready for device in devices)
        log.info("detectors: %s", ", ".join(self.devices))

    def _plan_nodes(self) -> list[tuple[str, PoolPlan]]:
        """One coordinator for each GPU node; without GPUs, for each node that has CPUs."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        able = [node for node in nodes if node["Resources"].get("CPU", 0) >= 1]
        with_gpu = [node for node in able if node["Resources"].get("GPU", 0) > 0]
        use_gpus = with_gpu and self._settings.job.detector.device != "cpu"
        chosen = with_gpu if use_gpus else able
        if not chosen:
            raise ClusterError("No node of the cluster has a CPU to work with; add worker nodes.")
        return [
            (
                node["NodeID"],
                plan_pools(
                    self._settings.job,
                    cpus=int(node["Resources"]["CPU"]),
                    gpus=node["Resources"].get("GPU", 0.0),
                    store_bytes=node["Resources"].get("object_store_memory", LOCAL_STORE_BYTES),
                ),
            )
            for node in chosen
        ]

    def sweep(self, tasks: Iterable[SceneTask]) -> Iterator[SceneOutcome]:
        """Yield outcomes as scenes are committed.

        Raises
        ------
        OutputError, ModelError, ClusterError
            If the run can't go on.
        """
        waiting: dict[ray.ObjectRef, tuple[_Seat, SceneTask, int]] = {}
        again: deque[tuple[SceneTask, int]] = deque()
        source = iter(tasks)
        while True:
            for seat, task, attempt in self._hand_out(again, source):
                waiting[seat.actor.sweep.remote(task)] = (seat, task, attempt)
            reviving = {seat.revival: seat for seat in self._coordinators if seat.revival}
            if not waiting and not reviving:
                self._poll_progress(LAST_POLL_SECONDS)
                return
            for ref in _wait([*waiting, *reviving]):
                if ref in reviving:
                    self._revived(reviving[ref], ref)
                    continue
                seat, task, attempt = waiting.pop(ref)
                seat.load -= 1
                try:
                    yield ray.get(ref)
                except RayTaskError as error:
                    raise _told(error) from None
                except _GONE as error:
                    self._lost(seat)
                    if attempt < SCENE_TRIES:
                        again.append((task, attempt + 1))
                        continue
                    reason = f"Its coordinator died {SCENE_TRIES} times ({_first_line(error)})."
                    counts = failed_counts(task, self._settings.job, None)
                    yield self._committer.fail(task, reason, counts)
            self._poll_progress()

    def _hand_out(
        self, again: deque[tuple[SceneTask, int]], source: Iterator[SceneTask]
    ) -> Iterator[tuple[_Seat, SceneTask, int]]:
        """Give each free seat the next scene, those to be tried again first."""
        while True:
            free = [s for s in self._coordinators if s.revival is None and s.load < s.scenes]
            if not free:
                return
            if again:
                task, attempt = again.popleft()
            else:
                following = next(source, None)
                if following is None:
                    return
                task, attempt = following, 1
            seat = min(free, key=lambda seat: seat.load)
            seat.load += 1
            yield seat, task, attempt

    def _lost(self, seat: _Seat) -> None:
        """Give a coordinator no more scenes until Ray has restarted it; the others go on."""
        if seat.revival is not None or seat not in self._coordinators:
            return  # another of its scenes told us already
        log.warning("a coordinator died; its scenes are tried again")
        self._lost_activity += replace(seat.activity, queues={}, actors={})
        seat.activity = Activity()
        seat.progress = None
        seat.patience = time.monotonic() + START_SECONDS
        seat.revival = seat.actor.ready.remote()

    def _revived(self, seat: _Seat, ref: ray.ObjectRef) -> None:
        """Take a coordinator back, or drop it if it is gone for good, as with its node."""
        try:
            ray.get(ref)
        except RayTaskError as error:
            raise _told(error) from None
        except ActorUnavailableError:
            if time.monotonic() < seat.patience:
                time.sleep(POLL_SECONDS)
                seat.revival = seat.actor.ready.remote()
                return
            self._coordinators.remove(seat)
        except _GONE:
            self._coordinators.remove(seat)
        seat.revival = None
        if not self._coordinators:
            raise ClusterError("The last coordinator died and did not come back; see the Ray logs.")

    def _poll_progress(self, patience: float = 0.0) -> None:
        """Take in what coordinators have answered, and ask them anew now and then; never in the way."""
        if self._on_activity is None:
            return
        now = time.monotonic()
        for seat in self._coordinators:
            if patience or (seat.progress is None and now - seat.asked >= POLL_SECONDS):
                seat.progress, seat.asked = seat.actor.progress.remote(), now
        asked = [seat.progress for seat in self._coordinators if seat.progress is not None]
        if not asked:
            return
        answered = set(ray.wait(asked, num_returns=len(asked), timeout=patience)[0])
        for seat in self._coordinators:
            ref = seat.progress
            if ref is not None and ref in answered:
                with contextlib.suppress(*_GONE):
                    seat.activity = ray.get(ref)
                seat.progress = None
        self._on_activity(sum((seat.activity for seat in self._coordinators), self._lost_activity))


class _Seat:
    """A coordinator and what it was given."""

    def __init__(self, actor: Any, scenes: int) -> None:
        self.actor = actor
        self.scenes = scenes
        self.load = 0
        self.activity = Activity()
        self.revival: ray.ObjectRef | None = None
        self.patience = 0.0
        self.progress: ray.ObjectRef | None = None
        self.asked = 0.0


def check_address(address: str | None, where: str) -> None:
    """Refuse addresses by which a run would have its driver, and what it reads, outside the cluster.

    Raises
    ------
    JobError
        If the address is one of Ray Client or of a dashboard; `where` names its origin.
    """
    scheme, found, rest = (address or "").partition("://")
    if found:
        host = rest.rpartition("@")[2].partition("/")[0].partition(":")[0]
        raise JobError(
            f"{where} is {scheme}://{host}, by which no run can join a cluster: submit the job with "
            f"`geosweep submit --address http://{host}:8265`, or run it on a node of the cluster with "
            "--address auto."
        )


def _wait(refs: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """All that are done, once one is or `POLL_SECONDS` are over."""
    done, _ = ray.wait(refs, timeout=POLL_SECONDS)
    return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if done else []


def _told(error: RayTaskError) -> Exception:
    """What a coordinator raised, as a user is to see it."""
    cause = cause_of(error)
    if isinstance(cause, GeosweepError):
        return cause
    return ClusterError(
        f"A coordinator failed with {type(cause).__name__}: {_first_line(cause)}; look at the worker "
        "logs for memory or a crash in native code."
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")
