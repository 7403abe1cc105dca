"""Which plan a run goes by: the output's frozen one while it is unfinished, else a new one.

Nothing asks the source while a frozen plan is in force, so a run that was cut off goes on without the
server that the scenes came from, and with the very scenes that it began with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from ..catalog import MissingKeyError, Records, open_source
from ..catalog._scratch import Scratch
from ..catalog.errors import SourceError
from ..catalog.planfile import PlanFile
from ..catalog.spec import source_key
from .crop_requests import side_bands

if TYPE_CHECKING:
    from ..catalog import Scene, Source, Storage
    from .job import Job
    from .result import Result

log = logging.getLogger("geosweep")

REPORT = "run.json"


def plan_key(job: Job) -> str:
    """Hash of all in a job that decides its set of scenes (16 hex digits).

    Signatures in hrefs don't count, nor does the way in which hrefs are signed.
    """
    return source_key(job.source, job.crop_assets, side_bands(job))


def settle_plan(
    job: Job, storage: Storage, *, anew: bool = False, ask: bool = False, dry: bool = False
) -> PlanFile:
    """Return the plan that a run goes by, asking the source only if none is in force.

    A plan is in force from the moment at which it was frozen until each of its scenes is recorded.
    After that the source is asked again; if it can't be read, the old plan serves once more, with a
    warning.

    Parameters
    ----------
    job
        The job; a plan that was frozen for another set of scenes doesn't count.
    storage
        Of the output. A new plan is written there.
    anew
        Forget the old plan.
    ask
        Ask the source although a plan is in force, as for failed scenes that are tried again: the plan
        still has what was wrong with them then.
    dry
        Leave the output alone.

    Raises
    ------
    SourceError
        If the source can't be read and there is no plan to go by.
    """
    key = plan_key(job)
    old = None if anew else PlanFile.open(storage)
    if old is not None and old.key != key:
        old.close()
        old = None
    if old is not None and not ask and _in_force(old, job, storage):
        log.info("going on with the plan of %s: %d scenes", old.head.frozen, old.count)
        return old
    try:
        source = open_job_source(job)
        log.info("planning: %s", source.describe())
        return freeze_plan(job, None if dry else storage, source, old=old)
    except SourceError as error:
        if old is None or not _readable(old, job):
            raise
        log.warning("%s. Going by the plan of %s.", error, old.head.frozen)
        return old


def open_job_source(job: Job) -> Source:
    """Open a job's source with all that its crop models want."""
    return open_source(
        job.source,
        bbox=job.source.bbox,
        side_assets=job.crop_assets,
        side_bands=side_bands(job),
    )


def freeze_plan(
    job: Job, storage: Storage | None, source: Source, *, old: PlanFile | None = None
) -> PlanFile:
    """Freeze all scenes of a source, in the output or, without one, for this process alone.

    Parameters
    ----------
    job
        The job.
    storage
        Of the output.
    source
        From `open_job_source`.
    old
        The plan before, for the same set of scenes. Those of its scenes that the source no longer has,
        and whose rows stand in the output, are retained: the ground stays theirs.
    """
    with closing(Scratch("CREATE TABLE given (id TEXT PRIMARY KEY) WITHOUT ROWID")) as given:

        def scenes() -> Iterator[Scene]:
            for scene in source:
                if old is not None:
                    given.execute("INSERT OR IGNORE INTO given VALUES (?)", (scene.id,))
                yield scene

        return PlanFile.freeze(
            storage,
            scenes(),
            key=plan_key(job),
            retained=() if old is None or storage is None else _gone(old, given, storage),
            duplicates=lambda: source.duplicates,
            area=source.area,
        )


def report_of(result: Result, plan: PlanFile) -> bytes:
    """Return the content of `run.json`, which also says whether the plan is finished."""
    finished = result.counts["scenes"] == plan.count and not result.counts["unfinished"]
    report = result.report() | {"plan": {"id": plan.head.id, "finished": finished}}
    return json.dumps(report, indent=2).encode()


def _in_force(plan: PlanFile, job: Job, storage: Storage) -> bool:
    return not _finished(plan, storage) and _readable(plan, job)


def _finished(plan: PlanFile, storage: Storage) -> bool:
    try:
        report = json.loads(storage.get(REPORT))
    except (MissingKeyError, ValueError):
        return False
    about = report.get("plan") if isinstance(report, dict) else None
    return about == {"id": plan.head.id, "finished": True}


def _readable(plan: PlanFile, job: Job) -> bool:
    """Whether a plan's hrefs can be read: signed ones lost their signatures when it was written."""
    return plan.hrefs == "whole" or (plan.hrefs == "signed" and job.source.sign is not None)


def _gone(old: PlanFile, given: Scratch, storage: Storage) -> Iterator[Scene]:
    records = Records(storage)
    for scenes in (old.scenes(), old.retained()):
        for scene in scenes:
            if given.first("SELECT 1 FROM given WHERE id = ?", (scene.id,)) is None:
                item = records.read_item(scene.id)
                if item is not None and "data" in item.get("assets", {}):
                    yield scene
