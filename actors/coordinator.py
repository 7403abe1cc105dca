"""The scene coordinator: one for each node, with its own pools, on its node's pixels.

It hands window batches from a reader to the detectors, cuts and classifies the crops, merges, and
commits. Pixels stay in the node's object store: the coordinator sees references and small results.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import ray
from ray.actor import exit_actor
from ray.exceptions import RayActorError, RayTaskError

from ..catalog import open_storage
from ..catalog.collection import read_collection
from ..catalog.errors import ClusterError, GeosweepError, ModelError, OutputError
from ..pipeline.activity import Activity
from ..pipeline.choose import Selected
from ..pipeline.collect import SceneCollector, settle
from ..pipeline.commit import Committer, SceneOutcome
from ..pipeline.failure import failed_counts
from .account import Account
from .budget import ByteBudget, HeldPixels
from .pool import RESTART_SECONDS, cause_of
from .staff import Staff
from .workers import Announced, StreamLostError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..pipeline.collect import SceneDetections
    from ..pipeline.crop import CropNote
    from ..pipeline.detect import Found
    from ..pipeline.halving import Halvings
    from ..pipeline.pools import PoolPlan
    from ..pipeline.scene_reader import SceneHeader, SceneTask
    from ..pipeline.settings import Settings
    from ..pipeline.stream import StreamCounts

log = logging.getLogger("geosweep")
T = TypeVar("T")

SCENE_TRIES = 3
"""Times a scene is begun anew when its reader dies, before it is recorded as failed."""


OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "max_restarts": -1,
    "max_task_retries": 0,
    "max_concurrency": 64,
}


class _ReaderLostError(Exception):
    """The reader's process died with the scene's stream in it."""


class Coordinator:
    """Runs scenes on one node."""

    def __init__(self, settings: Settings, output: str, pools: PoolPlan, batch_size: int) -> None:
        self._settings = settings
        self._plan = pools
        self._storage = open_storage(output)
        self._committer = Committer(self._storage, settings)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="geosweep-write")
        self._pixels = ByteBudget(pools.budget)
        self._crops = ByteBudget(pools.budget)
        self._batch_size = batch_size
        self._crop_bytes: dict[str, int] = {}
        self._staff = Staff.hire(settings, pools, batch_size)
        self._account = Account(settings.job.name, self._staff)

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
            devices = [await actor.device.remote() for actor in self._staff.detectors.actors]
            for actor in self._staff.croppers.actors:
                self._crop_bytes = await actor.input_bytes.remote()
            for pool in self._staff.classifiers.values():
                await asyncio.gather(*(actor.fill.remote() for actor in pool.actors))
        except RayTaskError as error:
            raise cause_of(error) from None
        if self._plan.gpus and "cpu" in devices:
            raise ClusterError(
                f"A detector on {ray.util.get_node_ip_address()} was given a GPU but runs on the CPU: "
                "install a CUDA build of torch there, or set cluster.detectors.num_gpus to 0."
            )
        self._account.begin()
        return devices

    def _check_output(self) -> None:
        seen = read_collection(self._storage)
        if seen is None or seen.get("geosweep:fingerprint") != self._settings.fingerprint:
            raise OutputError(
                f"{self._storage.uri()} is another folder on node {ray.util.get_node_ip_address()} than "
                "where this run began; choose an output.path that all nodes share."
            )

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
        outcome = await self._sweep(task)
        self._account.scene(outcome, time.perf_counter() - start)
        return outcome

    async def _sweep(self, task: SceneTask) -> SceneOutcome:
        if task.scene.error is not None:
            return await self._blocking(self._committer.fail, task, task.scene.error)
        reason, run = "", _SceneRun(task)
        for attempt in range(SCENE_TRIES):
            run = _SceneRun(task)
            start = time.perf_counter()
            try:
                detections = await self._sweep_once(run)
                seconds = {
                    "sweep": time.perf_counter() - start,
                    "detect": run.detect_seconds,
                }
                return await self._blocking(
                    self._committer.succeed, task, run.header, detections, seconds
                )
            except _ReaderLostError:
                self._staff.readers.deaths += 1
                reason = f"Its reader's process died {SCENE_TRIES} times; look at the worker logs."
                await asyncio.sleep(RESTART_SECONDS * (attempt + 1))
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

    async def _sweep_once(self, run: _SceneRun) -> SceneDetections:
        session = uuid.uuid4().hex

        async def stream(reader: Any) -> StreamCounts:
            # A dead reader takes the stream with it: begin the scene anew, not this call.
            try:
                run.open(await reader.open.remote(session, run.task), self._settings)
                await self._stream(run, reader, session)
                counts: StreamCounts | None = await reader.close.remote(session)
            except RayActorError as error:
                raise _ReaderLostError from error
            except RayTaskError as error:
                if isinstance(cause_of(error), StreamLostError):
                    raise _ReaderLostError from error
                raise
            finally:
                reader.close.remote(session)
            if counts is None:
                raise _ReaderLostError
            self._account.add(run.read_up_to(*counts.bytes))
            return counts

        counts = await self._staff.readers.call(stream)
        assert run.collector is not None
        return await self._blocking(run.collector.finish, counts, self._settings.crop_classes)

    async def _stream(self, run: _SceneRun, reader: Any, session: str) -> None:
        """Pull batches from the reader while earlier ones are detected in."""
        ahead = asyncio.Semaphore(2 * self._plan.detectors + 1)
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
                _raise_first(tasks)
                await self._pixels.acquire(size)
                try:
                    refs = reader.next_batch.options(num_returns=2).remote(session)
                    batch: Announced | None = await refs[0]
                except BaseException:
                    self._pixels.release(size)
                    raise
                if batch is None:
                    self._pixels.release(size)
                    break
                pixels = HeldPixels(refs[1], partial(self._pixels.release, size))
                del refs
                work = asyncio.create_task(self._do_batch(run, number, batch, pixels))
                work.add_done_callback(partial(finished, pixels))
                tasks.add(work)
                number += 1
            await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)

    async def _do_batch(
        self, run: _SceneRun, number: int, batch: Announced, pixels: HeldPixels
    ) -> None:
        """One batch of windows through detector, croppers and classifiers."""
        self._account.add(run.read_up_to(batch.decoded_bytes, batch.stored_bytes))
        detected: tuple[Selected, float, dict[str, Halvings]] = await self._staff.detectors.call(
            lambda actor: actor.detect.remote(pixels.ref, run.task_ref, run.header_ref)
        )
        selected, seconds, halvings = detected
        run.detect_seconds += seconds
        self._account.add(Activity(detect_seconds=seconds, halvings=halvings))
        count = len(selected.found)
        chunks = [
            (spec.name, selected.found[np.arange(start, min(start + spec.batch_size, count))])
            for spec in self._settings.job.crop_models
            for start in range(0, count, spec.batch_size)
        ]
        pixels.share(len(chunks))
        results = await _all([self._classify(run, name, some, pixels) for name, some in chunks])
        classified: dict[str, list[tuple[NDArray[np.float32], CropNote]]] = {}
        for (name, _), result in zip(chunks, results, strict=True):
            classified.setdefault(name, []).append(result)
        done = settle(selected, classified, self._settings.crop_classes)
        assert run.collector is not None
        run.collector.add(number, done)
        self._account.add(Activity(windows=batch.windows, detections=len(done.found)))

    async def _classify(
        self, run: _SceneRun, name: str, found: Found, pixels: HeldPixels
    ) -> tuple[NDArray[np.float32], CropNote]:
        """Class probabilities of some detections of a batch; their crops live only in here.

        The budget is taken chunk by chunk: the crops of a whole dense batch may be larger than the
        store.
        """

        async def cut(actor: Any) -> tuple[CropNote, ray.ObjectRef]:
            # The note says that the crops are there; they stay in the store.
            note, ref = actor.cut.options(num_returns=2).remote(
                name, found, pixels.ref, run.task_ref, run.header_ref
            )
            return await note, ref

        async with self._crops.hold(len(found) * self._crop_bytes[name]):
            note, crops = await self._staff.croppers.call(cut)
            pixels.leave()
            pool = self._staff.classifiers[name]
            classes: tuple[NDArray[np.float32], dict[str, Halvings]] = await pool.call(
                lambda actor: actor.classify.remote(crops)
            )
            rows, halvings = classes
            self._account.add(Activity(crops=len(rows), halvings=halvings))
            return rows, note

    async def _blocking(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work, *args)


class _SceneRun:
    """State of one try at a scene."""

    def __init__(self, task: SceneTask) -> None:
        self.task = task
        self.header: SceneHeader | None = None
        self.collector: SceneCollector | None = None
        self.detect_seconds = 0.0
        self._read = (0, 0)

    def open(self, header: SceneHeader, settings: Settings) -> None:
        """Note the opened scene; its limits and header go to the store once, not with each batch."""
        self.header = header
        self.collector = SceneCollector(header, settings.job.merge)
        self.task_ref = ray.put(self.task)
        self.header_ref = ray.put(header)

    def read_up_to(self, decoded: int, stored: int) -> Activity:
        """Bytes that were read since the last call, by what was read of the scene so far."""
        before, self._read = self._read, (decoded, stored)
        return Activity(decoded_bytes=decoded - before[0], stored_bytes=stored - before[1])


def _raise_first(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; the first failure cancels the rest."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
