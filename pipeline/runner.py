"""Run a job: plan, skip what is done, sweep the rest, sum up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Literal, Protocol

from ..catalog import Storage, open_storage
from ..catalog.collection import read_collection, write_collection
from ..catalog.errors import JobError, OutputError
from ..catalog.lease import presence
from ..catalog.ledger import Ledger
from .commit import SceneOutcome, finished
from .frozen import REPORT, report_of, settle_plan
from .planner import ScenePlan
from .progress import RunProgress
from .settings import Settings, software_versions
from .tally import sum_up
from .used_models import lineage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..catalog.planfile import PlanFile
    from .activity import OnActivity
    from .job import Job
    from .result import Result
    from .scene_reader import SceneTask

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

    The scenes are frozen first, as a plan in the output. A run that goes on sweeps that very plan and
    does not ask the source; when all of it is on record, the next run asks the source again.

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
    check_claim(storage, settings, overwrite=overwrite)
    # Before the output is made: a job whose source can't be read leaves none.
    plan = settle_plan(settings.job, storage, anew=overwrite, ask=retry_failed)
    claim(storage, settings, overwrite=overwrite)
    return run_plan(
        settings,
        storage,
        plan,
        engine=engine,
        address=address,
        limit=limit,
        retry_failed=retry_failed,
        overwrite=overwrite,
        progress=progress,
        start=start,
    )


def run_plan(
    settings: Settings,
    storage: Storage,
    plan: PlanFile,
    *,
    engine: EngineName = "ray",
    address: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    start: float | None = None,
    check: Callable[[], None] | None = None,
    ledger: Ledger | None = None,
) -> Result:
    """Sweep what is not recorded as done of a frozen plan, into an output that was claimed.

    Parameters
    ----------
    settings, storage, plan
        The job, its output, and the plan that stands there.
    engine, address, limit, retry_failed, overwrite, progress
        As for `run`.
    start
        When the run began, by `time.perf_counter`; now, if not given.
    check
        Called before each scene is begun and when one has ended; raises to end the run.
    ledger
        The output's records, where the caller has read them already.

    Raises
    ------
    GeosweepError
        If the models, the output or the cluster is at fault.
    """
    start = time.perf_counter() if start is None else start
    scenes = ScenePlan(settings.job, plan, limit=limit)
    devices: list[str] = []
    done = windows = 0
    with RunProgress(scenes.count, show=progress) as shown:
        todo = _unfinished(
            scenes,
            storage,
            settings,
            shown,
            retry_failed=retry_failed,
            overwrite=overwrite,
            ledger=ledger,
        )
        first = next(todo, None)  # without one, no engine has to be started
        if first is not None:
            with (
                presence(storage, "run"),
                _open_engine(
                    engine, settings, storage, address, shown.on_activity, scenes.count
                ) as opened,
            ):
                devices = opened.devices
                shown.on_start()
                for outcome in opened.sweep(_checked(chain([first], todo), check)):
                    shown.on_scene(outcome)
                    done += 1
                    # Here, too: a scene may have been begun long before this one ended.
                    if check is not None:
                        check()
                    # What the tile filter skips was read and looked at, too.
                    for end in ("processed", "skipped_filter"):
                        windows += outcome.counts.get(f"windows_{end}", 0)
    result = sum_up(scenes, storage, settings, engine)
    result.devices = devices
    result.halvings = shown.halvings
    result.timings["wall"] = time.perf_counter() - start
    result.counts |= {
        "scenes_now": done,
        "windows_now": windows,
        "source_duplicates": plan.duplicates,
    }
    storage.put(REPORT, report_of(result, plan))
    return result


def _checked(tasks: Iterator[SceneTask], check: Callable[[], None] | None) -> Iterator[SceneTask]:
    for task in tasks:
        if check is not None:
            check()
        yield task


def _open_engine(
    name: EngineName,
    settings: Settings,
    storage: Storage,
    address: str | None,
    on_activity: OnActivity,
    scenes: int,
) -> AbstractContextManager[Engine]:
    if name == "local":
        from .local import LocalEngine

        return LocalEngine(settings, storage, on_activity)
    from .driver import RayEngine

    return RayEngine(settings, storage, address=address, on_activity=on_activity, scenes=scenes)


def check_claim(
    storage: Storage,
    settings: Settings,
    *,
    overwrite: bool,
    remedy: str = "choose another output.path, or redo every scene there with --overwrite",
) -> None:
    """Raise OutputError, naming the remedy, if the output is another job's; nothing is written."""
    old = None if overwrite else read_collection(storage)
    if old is None:
        return
    theirs = old.get("geosweep:fingerprint")
    if theirs != settings.fingerprint:
        raise OutputError(
            f"{storage.uri()} holds the results of other models or settings (fingerprint {theirs}, this "
            f"job's is {settings.fingerprint}); {remedy}."
        )


def claim(storage: Storage, settings: Settings, *, overwrite: bool) -> None:
    """Make the output this job's, or refuse where it is another's."""
    check_claim(storage, settings, overwrite=overwrite)
    job = settings.job
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


def _unfinished(
    plan: ScenePlan,
    storage: Storage,
    settings: Settings,
    shown: RunProgress,
    *,
    retry_failed: bool,
    overwrite: bool,
    ledger: Ledger | None,
) -> Iterator[SceneTask]:
    """Yield the plan's scenes that are not recorded as done, when their turn comes."""
    if overwrite:
        yield from plan.tasks()
        return
    with nullcontext(ledger) if ledger is not None else Ledger.read(storage) as records:
        log.info("%d scenes in the plan, %d on record", plan.count, len(records))
        for task in plan.tasks():
            record = records.get(task.scene.id)
            # Hashing what decides a scene's rows takes longer than finding that it has no record.
            if record is not None and finished(
                record, settings.scene_version(task), retry_failed=retry_failed
            ):
                shown.on_standing()
            else:
                yield task
