"""The scene coordinator: one for each node, with its own pools, on its node's pixels.

It hands window batches from a reader to the detectors, cuts and classifies the crops, merges, and
commits. Pixels stay in the node's object store: the coordinator sees references and small results.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import exit_actor
from ray.exceptions import (
    ActorUnschedulableError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
)

from ..catalog import open_storage
from ..catalog.collection import read_collection
from ..catalog.errors import GeosweepError, ModelError, OutputError
from ..pipeline.activity import Activity
from ..pipeline.commit import Committer, SceneOutcome
from ..pipeline.failure import failed_counts
from ._tasks import cancel, raise_first
from .account import Account
from .batch_work import BatchWork
from .budget import Budget, HeldPixels, JointBudget
from .pool import RESTART_PATIENCE_SECONDS, RESTART_SECONDS, cause_of, stood
from .scene_run import SceneRun
from .staff import Staff
from .workers import Announced, StreamLostError

if TYPE_CHECKING:
    from ..pipeline.collect import SceneDetections
    from ..pipeline.pools import PoolPlan, ReaderNode
    from ..pipeline.scene_reader import SceneTask
    from ..pipeline.settings import Settings
    from ..pipeline.stream import StreamCounts

log = logging.getLogger("geosweep")

SCENE_TRIES = 3
"""Times a scene is begun anew when its reader dies, before it is recorded as failed."""

WRITERS = 4
"""Scenes that are merged and written at the same time: a put to an object store is mostly waiting."""

OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "max_restarts": -1,
    "max_task_retries": 0,
    "max_concurrency": 1000,
}


class _ReaderLostError(Exception):
    """The reader's process died with the scene's stream in it, or its node with the pixels.

    Parameters
    ----------
    reader
        The actor.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader


class Coordinator:
    """Runs scenes on one node."""

    def __init__(self, settings: Settings, output: str, pools: PoolPlan, batch_size: int) -> None:
        self._settings = settings
        self._plan = pools
        self._storage = open_storage(output)
        self._committer = Committer(self._storage, settings)
        self._writer = ThreadPoolExecutor(WRITERS, thread_name_prefix="geosweep-write")
        self._pixels = Budget(pools.budget)
        self._batch_size = batch_size
        self._staff = Staff(settings, pools, batch_size)
        self._account = Account(settings.job.name, self._staff)
        self._batches = BatchWork(settings, self._staff, self._account, Budget(pools.budget))

    async def ready(self) -> list[str]:
        """Wait until all actors stand; gives the detectors' devices.

        Raises
        ------
        ModelError
            If a model can't be loaded.
        ClusterError
            If a GPU was given and torch doesn't see it.
        OutputError
            If this node sees another output than the driver does.
        """
        self._check_output()
        try:
            devices = await self._staff.stand()
        except RayTaskError as error:
            raise cause_of(error) from None
        self._account.begin()
        return devices

    def _check_output(self) -> None:
        seen = read_collection(self._storage)
        if seen is None or seen.get("geosweep:fingerprint") != self._settings.fingerprint:
            raise OutputError(
                f"{self._storage.uri()} is another folder on node {ray.util.get_node_ip_address()} than "
                "where this run began; choose an output.path that all nodes share."
            )

    async def set_reader_nodes(self, nodes: list[ReaderNode]) -> None:
        """Have readers on these nodes from now on, besides those here, and on no others.

        Returns at once; the readers begin when they stand. Scenes of readers that are let go, or whose
        node is gone, are begun anew.
        """
        self._staff.lent.set(nodes)

    async def progress(self) -> Activity:
        """What was done so far."""
        return self._account.tell()

    async def close(self) -> None:
        """End, and the actors with it. Ray hands on the last metrics of actors that end by themselves."""
        self._account.tell()
        exit_actor()

    async def sweep(self, task: SceneTask) -> SceneOutcome:
        """Sweep a scene and commit it, as a failure if need be.

        Raises
        ------
        OutputError, ModelError
            Since then no other scene would fare better.
        """
        start = time.perf_counter()
        async with self._staff.scenes.hold(1):
            outcome = await self._sweep(task)
        self._account.scene(outcome, time.perf_counter() - start)
        return outcome

    async def _sweep(self, task: SceneTask) -> SceneOutcome:
        if task.scene.error is not None:
            return await self._blocking(self._committer.fail, task, task.scene.error)
        reason, run, deaths = "", SceneRun(task), 0
        while deaths < SCENE_TRIES:
            run = SceneRun(task)
            start = time.perf_counter()
            try:
                # Alone on a reader after a death: who brought it about is not known, and would take
                # the others down again.
                detections = await self._sweep_once(run, alone=deaths > 0)
                seconds = {
                    "sweep": time.perf_counter() - start,
                    "detect": run.detect_seconds,
                }
                return await self._blocking(
                    self._committer.succeed, task, run.header, detections, seconds
                )
            except _ReaderLostError as error:
                if await self._staff.lent.is_gone(error.reader):
                    continue
                deaths += 1
                self._staff.readers.deaths += 1
                reason = f"Its reader's process died {SCENE_TRIES} times; look at the worker logs."
                await asyncio.sleep(RESTART_SECONDS * deaths)
                await stood(error.reader.__ray_ready__.remote, RESTART_PATIENCE_SECONDS)
            except (OutputError, ModelError):
                raise
            except GeosweepError as error:
                reason = str(error)
                break
            except Exception as error:  # one bad scene must not end a continent
                log.warning("scene %s failed", task.scene.id, exc_info=True)
                reason = f"{type(error).__name__}: {error}"
                break
        counts = failed_counts(task, self._settings.job, run.header)
        return await self._blocking(self._committer.fail, task, reason, counts)

    async def _sweep_once(self, run: SceneRun, *, alone: bool) -> SceneDetections:
        session = uuid.uuid4().hex

        async def stream(reader: Any) -> StreamCounts:
            # A dead reader takes the stream with it: begin the scene anew, not this call.
            try:
                run.open(await reader.open.remote(session, run.task), self._settings)
                await self._stream(run, reader, session)
                counts: StreamCounts | None = await reader.close.remote(session)
            except (RayActorError, ActorUnschedulableError, ObjectLostError) as error:
                raise _ReaderLostError(reader) from error
            except RayTaskError as error:
                if isinstance(cause_of(error), StreamLostError):
                    raise _ReaderLostError(reader) from error
                raise
            finally:
                reader.close.remote(session)
            if counts is None:
                raise _ReaderLostError(reader)
            self._account.add(run.read_up_to(*counts.bytes))
            return counts

        counts = await self._staff.readers.call(stream, alone=alone)
        assert run.collector is not None
        return await self._blocking(run.collector.finish, counts, self._settings.crop_classes)

    async def _stream(self, run: SceneRun, reader: Any, session: str) -> None:
        """Pull batches from the reader while earlier ones are detected in."""
        lent = self._staff.lent.pixels_of(reader)
        room = JointBudget(*([lent] if lent is not None else []), self._pixels)
        ahead = asyncio.Semaphore(2 * self._plan.detectors.max + 1)
        tasks: set[asyncio.Task[None]] = set()
        assert run.header is not None
        at_once = run.header.windows_at_once(self._batch_size)
        size = run.header.count * run.header.grid.size**2 * at_once
        number = 0

        def finished(pixels: HeldPixels, _: object) -> None:
            # Here rather than in the task: one that is cancelled before its first step never runs.
            pixels.release()
            ahead.release()

        try:
            while True:
                await ahead.acquire()
                raise_first(tasks)
                await room.acquire(size)
                try:
                    refs = reader.next_batch.options(num_returns=2).remote(session)
                    batch: Announced | None = await refs[0]
                except BaseException:
                    room.release(size)
                    raise
                if batch is None:
                    room.release(size)
                    break
                pixels = HeldPixels(refs[1], partial(room.release, size))
                del refs
                work = asyncio.create_task(self._batches.do(run, number, batch, pixels))
                work.add_done_callback(partial(finished, pixels))
                tasks.add(work)
                number += 1
            await asyncio.gather(*tasks)
        finally:
            await cancel(tasks)

    async def _blocking(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work, *args)
