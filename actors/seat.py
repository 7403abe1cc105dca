"""A coordinator, as the driver sees it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..catalog.errors import ClusterError, GeosweepError
from ..pipeline.activity import Activity
from ..pipeline.pools import plan_pools
from .coordinator import OPTIONS, Coordinator
from .pool import cause_of

if TYPE_CHECKING:
    from ..pipeline.nodes import Node
    from ..pipeline.scene_reader import SceneTask
    from ..pipeline.settings import Settings

START_SECONDS = 300.0
"""Patience with actors that start."""
POLL_SECONDS = 0.5
CLOSE_SECONDS = 2.0
"""Patience with coordinators at the end: for their last numbers, and until they are gone."""
GONE = (RayActorError, ActorUnschedulableError)
"""What Ray raises for an actor that is dead, restarting, or whose node is gone."""


class Seat:
    """A node's coordinator and what it was given.

    Parameters
    ----------
    settings
        The job.
    node
        Where it is.
    late
        Whether the run goes on without it, should it not stand.

    Attributes
    ----------
    load
        How many scenes it has.
    answer
        Reference to what it says when its actors stand; None once they do.
    stood
        Whether its actors have stood once.

    Raises
    ------
    ClusterError
        If the job asks for more than the node has.
    """

    def __init__(self, settings: Settings, node: Node, *, late: bool) -> None:
        self.node = node
        plan = plan_pools(
            settings.job,
            cpus=int(node.cpus),
            gpus=node.gpus,
            store_bytes=node.store_bytes,
        )
        remote: Any = ray.remote(Coordinator)
        here = NodeAffinitySchedulingStrategy(node.id, soft=False)
        self._actor = remote.options(scheduling_strategy=here, **OPTIONS).remote(
            settings,
            settings.job.output.path,
            plan,
            settings.batch_size("cuda" if plan.gpus else "cpu"),
        )
        self._scenes = plan.scenes
        self.load = 0
        self.late = late
        self.activity = Activity()
        self._lent: dict[str, int] = {}
        self._progress: ray.ObjectRef | None = None
        self._asked = 0.0
        self.stood = False
        self.answer: ray.ObjectRef | None = None
        self.expect()

    @property
    def scenes(self) -> int:
        """How many scenes it takes at a time: one more for each reader that it is lent."""
        return self._scenes + sum(self._lent.values())

    @property
    def stands(self) -> bool:
        """Whether it can take scenes."""
        return self.answer is None

    @property
    def overdue(self) -> bool:
        """Whether it took too long to stand."""
        return self.answer is not None and time.monotonic() > self._patience

    def expect(self) -> None:
        """Wait for its actors, anew after it died."""
        self._patience = time.monotonic() + START_SECONDS
        self.ask_again()

    def ask_again(self) -> None:
        """Ask once more whether its actors stand, within the same patience."""
        self.answer = self._actor.ready.remote()

    def stand(self, answer: ray.ObjectRef) -> list[str]:
        """Take in that its actors stand; gives the detectors' devices, or raises what the answer is."""
        devices: list[str] = ray.get(answer)
        self.answer = None
        self.stood = True
        return devices

    def sweep(self, task: SceneTask) -> ray.ObjectRef:
        """Give it a scene; the reference is to the scene's outcome."""
        self.load += 1
        return self._actor.sweep.remote(task)

    def lend(self, nodes: list[Node]) -> None:
        """Tell it which nodes lend it readers, if that is news."""
        lent = {node.id: node.readers for node in nodes}
        if lent.keys() != self._lent.keys():
            self._lent = lent
            self._actor.set_reader_nodes.remote([node.lent() for node in nodes])

    def lose(self) -> Activity:
        """Take in that it died; gives what it did until then, which its successor doesn't know of."""
        done, self.activity = self.activity, Activity()
        self._progress = None
        self._lent = {}
        return replace(done, queues={}, actors={})

    def ask_progress(self, *, now: bool = False) -> ray.ObjectRef | None:
        """Ask for its numbers, not too often; the reference is to those that it still owes."""
        since = time.monotonic() - self._asked
        if self.stands and (now or (self._progress is None and since >= POLL_SECONDS)):
            self._progress, self._asked = self._actor.progress.remote(), time.monotonic()
        return self._progress

    def take_progress(self) -> None:
        """Take in its numbers, which are there."""
        if self._progress is not None:
            with contextlib.suppress(*GONE):
                self.activity = ray.get(self._progress)
        self._progress = None

    def close(self) -> ray.ObjectRef:
        """Ask it to end, and its actors with it."""
        return self._actor.close.remote()

    def kill(self) -> None:
        """End it, whatever it is at."""
        with contextlib.suppress(Exception):
            ray.kill(self._actor)


def hear(seats: Iterable[Seat], patience: float) -> bool:
    """Take in the numbers that coordinators tell within the time; whether any was asked."""
    asked = {ref: seat for seat in seats if (ref := seat.ask_progress(now=patience > 0))}
    if asked:
        for ref in ray.wait(list(asked), num_returns=len(asked), timeout=patience)[0]:
            asked[ref].take_progress()
    return bool(asked)


def wait_for(refs: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """All that are done, once one is or `POLL_SECONDS` are over."""
    if not refs:
        time.sleep(POLL_SECONDS)
        return []
    done, _ = ray.wait(refs, timeout=POLL_SECONDS)
    return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if done else []


def told(error: RayTaskError) -> Exception:
    """What a coordinator raised, as a user is to see it."""
    cause = cause_of(error)
    if isinstance(cause, GeosweepError):
        return cause
    return ClusterError(
        f"A coordinator failed with {type(cause).__name__}: {first_line(cause)}; look at the worker "
        "logs for memory or a crash in native code."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, to stand within a sentence."""
    return str(error).strip().split("\n", 1)[0].rstrip(".")
