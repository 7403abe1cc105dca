"""Run a job: plan, skip what is done, sweep the rest, sum up."""

from __future__ import annotations

import json
import logging
import time
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol

from ..catalog import Records, Storage, open_storage
from ..catalog.collection import read_collection, write_collection, write_snapshot
from ..catalog.errors import JobError, OutputError
from ..catalog.ledger import Ledger
from .commit import SceneOutcome, finished
from .planner import ScenePlan
from .progress import RunProgress
from .result import COUNTS, Failure, Result
from .settings import Settings, software_versions
from .used_models import lineage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..catalog import SceneRecord
    from .job import Job
    from .scene_reader import SceneTask
    from .sweep import OnWindows

log = logging.getLogger("geosweep")
EngineName = Literal["ray", "local"]


class Engine(Protocol):
    """Sweeps scenes and commits them."""

    @property
    def devices(self) -> list[str]:
        """Where detectors run."""
        ...

    def sweep(self, tasks: Iterable[SceneTask]) -> Iterator[SceneOutcome]:
        """Yield outcomes as scenes are committed, in any order; takes tasks lazily."""
        ...


def run(
    job: Job,
    *,
    engine: EngineName = "ray",
    address: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Result:
    """Run a job, or go on with it: scenes that are recorded as done are left alone.

    Parameters
    ----------
    job
        What to do.
    engine
        ``ray`` (actors, on a local or running cluster) or ``local`` (this process); same rows.
    address
        Ray cluster to join, for example ``auto``; None starts a local one and stops it again, unless
        this process is connected to one already.
    limit
        First so many scenes of the plan.
    retry_failed
        Try scenes again that are recorded as failed.
    overwrite
        Take over an output made with other models or settings, and redo every scene.
    progress
        Show progress.

    Returns
    -------
    Result
        Counts over the whole plan. Scenes that fail are counted and listed, not raised.

    Raises
    ------
    GeosweepError
        If the job, its models, the source, the output or the cluster is at fault.
    """
    if engine not in ("ray", "local"):
        raise JobError(f"engine is {engine!r}; choose 'ray' or 'local'.")
    start = time.perf_counter()
    settings = Settings.resolve(job)
    storage = open_storage(job.output.path)
    _claim(storage, settings, overwrite=overwrite)
    plan = ScenePlan(job, limit=limit)
    todo = _Todo(plan, storage, settings, retry_failed=retry_failed, overwrite=overwrite)
    log.info("%d scenes in the plan, %d to do", len(plan.scenes), todo.count)
    devices: list[str] = []
    windows = 0
    with RunProgress(todo.count, show=progress) as shown:
        if todo.count:
            with _open_engine(engine, settings, storage, address, shown.on_windows) as opened:
                devices = opened.devices
                for outcome in opened.sweep(todo.tasks()):
                    shown.on_scene(outcome)
                    # What the tile filter skips was read and looked at, too.
                    for end in ("processed", "skipped_filter"):
                        windows += outcome.counts.get(f"windows_{end}", 0)
    result = _sum_up(plan, storage, settings, engine)
    result.devices = devices
    result.timings["wall"] = time.perf_counter() - start
    result.counts |= {
        "scenes_now": todo.count,
        "windows_now": windows,
        "source_duplicates": plan.duplicates,
    }
    write_snapshot(storage)
    storage.put("run.json", json.dumps(result.report(), indent=2).encode())
    return result


def _open_engine(
    name: EngineName,
    settings: Settings,
    storage: Storage,
    address: str | None,
    on_windows: OnWindows,
) -> AbstractContextManager[Engine]:
    if name == "local":
        from .local import LocalEngine

        return LocalEngine(settings, storage, on_windows)
    from .driver import RayEngine

    return RayEngine(settings, storage, address=address, on_windows=on_windows)


def _claim(storage: Storage, settings: Settings, *, overwrite: bool) -> None:
    """Make the output this job's, or refuse where it is another's."""
    job = settings.job
    old = read_collection(storage)
    if old is not None and not overwrite:
        theirs = old.get("geosweep:fingerprint")
        if theirs != settings.fingerprint:
            raise OutputError(
                f"{job.output.path} holds the results of other models or settings (fingerprint {theirs}, "
                f"this job's is {settings.fingerprint}); choose another output.path, or redo every scene "
                "there with --overwrite."
            )
    storage.sweep_temporary()
    write_collection(
        storage,
        collection_id=job.name,
        description=f"Detections by {settings.schema.model}, swept by geosweep.",
        fingerprint=settings.fingerprint,
        job=job.to_public_dict(),
        columns=settings.schema.describe(),
        models=settings.models,
        used=settings.used,
        software=software_versions(),
        lineage=lineage(job, settings.used),
        labels=settings.schema.classes,
    )


class _Todo:
    """The plan's scenes that are not recorded as done.

    Only their numbers are kept: limits are worked out again when a scene's turn comes.
    """

    def __init__(
        self,
        plan: ScenePlan,
        storage: Storage,
        settings: Settings,
        *,
        retry_failed: bool,
        overwrite: bool,
    ) -> None:
        self._plan = plan
        if overwrite:
            self._numbers = array("Q", range(len(plan.scenes)))
            return
        with Ledger.read(storage) as ledger:
            self._numbers = array(
                "Q",
                (
                    number
                    for number, task in enumerate(plan.tasks())
                    if not finished(
                        ledger.get(task.scene.id),
                        settings.scene_version(task),
                        retry_failed=retry_failed,
                    )
                ),
            )

    @property
    def count(self) -> int:
        return len(self._numbers)

    def tasks(self) -> Iterator[SceneTask]:
        return map(self._plan.task, self._numbers)


def _sum_up(plan: ScenePlan, storage: Storage, settings: Settings, engine: str) -> Result:
    """Add up the records of the plan's scenes."""
    counts: dict[str, int] = dict.fromkeys(("scenes", "succeeded", "empty", "failed", *COUNTS), 0)
    counts["scenes"] = len(plan.scenes)
    timings: dict[str, float] = {}
    failures: list[Failure] = []
    wanted = {scene.id for scene in plan.scenes}
    for record in _records_of(storage, wanted):
        counts[record.status] += 1
        for name, value in record.counts.items():
            counts[name] = counts.get(name, 0) + value
        for name, value in record.timings.items():
            timings[name] = timings.get(name, 0.0) + value
        if record.status == "failed":
            failures.append(Failure(record.scene.id, record.error or "unknown"))
    counts["unfinished"] = len(plan.scenes) - sum(
        counts[status] for status in ("succeeded", "empty", "failed")
    )
    return Result(
        output=settings.job.output.path,
        counts=counts,
        failures=sorted(failures, key=lambda failure: failure.scene_id),
        timings=timings,
        engine=engine,
        _storage=storage,
        _schema=settings.schema,
        _planned=lambda member: member.scene_id in wanted,
    )


def _records_of(storage: Storage, wanted: set[str]) -> Iterator[SceneRecord]:
    for record in Records(storage).all():
        if record.scene.id in wanted:
            yield record
