"""Update an output: one pass over what has changed in its source since the last."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..catalog import Records, open_storage
from ..catalog.changes import survey_of
from ..catalog.collection import write_snapshot
from ..catalog.errors import JobError, SourceError, StorageError
from ..catalog.lease import lease
from ..catalog.ledger import Ledger
from ..catalog.planfile import PlanFile
from ..catalog.withdrawal import sweep_orphans, withdraw
from .frozen import REPORT, open_job_source, report_of
from .result import Result
from .runner import check_claim, claim, run_plan
from .settings import Settings

if TYPE_CHECKING:
    from ..catalog import Scene, Source, Storage
    from ..catalog._survey import Survey
    from ..catalog.lease import Lease
    from ..catalog.ledger import Standing
    from .job import Job
    from .runner import EngineName

log = logging.getLogger("geosweep")

_REMEDY = (
    "redo every scene there with --overwrite, or with --keep-old to keep the older results beside the "
    "new ones"
)

CHANGES = ("new", "changed", "removed", "unchanged", "withdrawn")


@dataclass(slots=True)
class UpdateResult(Result):
    """Outcome of an update: that of the run that it led to, and what had changed.

    Parameters
    ----------
    removed
        Ids of scenes that had a record and that the source no longer has.
    elsewhere
        Who works on the output, where that kept this pass from doing anything.
    """

    removed: list[str] = field(default_factory=list)
    elsewhere: str | None = None

    def report(self) -> dict[str, Any]:
        """The content of `run.json`."""
        # Not super(): a dataclass with slots is made twice, and the first is what it would mean.
        more = {"removed": self.removed, "elsewhere": self.elsewhere}
        return Result.report(self) | more


def update(
    job: Job,
    *,
    since: str | None = None,
    prune: bool = False,
    overwrite: bool = False,
    keep_old: bool = False,
    engine: EngineName = "ray",
    address: str | None = None,
    progress: bool = True,
) -> UpdateResult:
    """Bring an output up to date with its source, in one pass that may be repeated at any time.

    Scenes that are new are swept. Those that have changed, or failed, are swept again, and each takes
    its record's place in one step. Unchanged scenes are left alone; their rasters are not read. A pass
    that was cut off is finished by the next. Of two passes at once, one works and the other does
    nothing.

    Parameters
    ----------
    job
        What to do. An output that is not there yet is made.
    since
        Time from which a STAC API is searched, in place of the latest `updated` that it gave before;
        ``..`` for everything. See `catalog.changes`.
    prune
        Withdraw the results of scenes that the source no longer has. Otherwise they are counted and
        listed, and stay.
    overwrite
        Redo every scene, also where the output was made with other models or settings.
    keep_old
        The same for what was made with other models or settings, and keep the older results beside the
        new ones, as older versions. What has changed in the source is kept, too.
    engine, address, progress
        As for `run`.

    Returns
    -------
    UpdateResult
        Its counts are those of the plan's scenes, and ``new``, ``changed``, ``removed``, ``unchanged``
        and ``withdrawn`` scenes.

    Raises
    ------
    OutputError
        If the output was made with other models or settings, and neither `overwrite` nor `keep_old` is
        given.
    SourceError
        If the source can't be read, or has no scenes at all.
    GeosweepError
        As `run` does.
    """
    if engine not in ("ray", "local"):
        raise JobError(f"engine is {engine!r}; choose 'ray' or 'local'.")
    if overwrite and keep_old:
        raise JobError("overwrite and keep_old exclude each other; choose one.")
    start = time.perf_counter()
    settings = replace(Settings.resolve(job), keep_old=keep_old)
    storage = open_storage(job.output.path)
    check_claim(storage, settings, overwrite=overwrite or keep_old, remedy=_REMEDY)
    with lease(storage, "update") as held, ExitStack() as stack:
        if not held:
            return _idle(settings, storage, engine, held.holder)
        ledger = stack.enter_context(Ledger.read(storage))
        passing = _Pass(settings, storage, ledger, prune=prune)
        plan = passing.freeze(since)  # stays open: the result asks it for its scenes
        claim(storage, settings, overwrite=True)  # checked above
        result = run_plan(
            settings,
            storage,
            plan,
            engine=engine,
            address=address,
            retry_failed=True,
            overwrite=overwrite,
            progress=progress,
            start=start,
            check=lambda: _check_lease(held, storage),
            ledger=ledger,
        )
        withdrawn = passing.clear_up(held)
        result.counts |= passing.counts | {"withdrawn": withdrawn}
        updated = UpdateResult(
            **{each.name: getattr(result, each.name) for each in fields(Result)},
            removed=[standing.scene_id for standing in passing.removed],
        )
        storage.put(REPORT, report_of(updated, plan))
        return updated


class _Pass:
    """What one pass finds to be done in an output, but for the sweeping."""

    def __init__(
        self, settings: Settings, storage: Storage, ledger: Ledger, *, prune: bool
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._ledger = ledger
        self._prune = prune
        self._renamed: list[Standing] = []
        self.removed: list[Standing] = []
        self.counts: dict[str, int] = {}

    def freeze(self, since: str | None) -> PlanFile:
        """Hold the source's present scenes against their records, and freeze them as the plan."""
        source = open_job_source(self._settings.job)
        log.info("looking at %s", source.describe())
        fingerprint = self._settings.fingerprint
        with survey_of(source, self._storage, self._ledger, fingerprint, since) as survey:
            plan = PlanFile.freeze(
                self._storage,
                self._some(survey, source),
                key=source.key,
                retained=self._retained(survey),
                duplicates=lambda: source.duplicates,
                area=source.area,
            )
        self.counts = {
            "new": survey.new,
            "changed": survey.changed,
            "removed": len(self.removed),
            "unchanged": survey.unchanged,
        }
        log.info("%s", ", ".join(f"{count} {name}" for name, count in self.counts.items()))
        self._warn_of_older_models()
        return plan

    def _warn_of_older_models(self) -> None:
        mine = self._settings.fingerprint
        older = sum(standing.fingerprint != mine for standing in self.removed)
        if older and not self._prune:
            log.warning(
                "results of other models or settings stand for scenes that the source no longer has "
                "(%d): withdraw them with --prune",
                older,
            )

    def clear_up(self, held: Lease) -> int:
        """Withdraw what has to go, and return how many scenes that are; remove dead files."""
        if not held:
            return 0  # the pass that took over does it
        going = self._renamed + (self.removed if self._prune else [])
        for standing in going:
            withdraw(self._storage, standing)
        if going:
            write_snapshot(self._storage)
        sweep_orphans(self._storage, self._ledger)
        return len(going)

    def _some(self, survey: Survey, source: Source) -> Iterator[Scene]:
        yield from survey.scenes()
        if not survey.new + survey.changed + survey.unchanged:
            # Rather a server's mistake than the end of all imagery.
            raise SourceError(
                f"{source.describe()}: there is no scene of those that are asked for; nothing was changed, "
                "remove the output if all of it is to go."
            )

    def _retained(self, survey: Survey) -> Iterator[Scene]:
        """Note which records have no scene now, and yield those whose rows stay in the output."""
        for standing, end in survey.gone():
            if end == "renamed":
                self._renamed.append(standing)
                continue
            self.removed.append(standing)
            if not self._prune and standing.data is not None:
                record = Records(self._storage).read(standing.scene_id)
                if record is not None:
                    yield record.scene


def _check_lease(held: Lease, storage: Storage) -> None:
    if not held:
        raise StorageError(
            f"This pass did not write to {storage.uri()} for so long that another one has taken over; "
            "it stops, and what it has done is kept."
        )


def _idle(settings: Settings, storage: Storage, engine: str, holder: str) -> UpdateResult:
    return UpdateResult(
        output=settings.job.output.path,
        counts=dict.fromkeys((*CHANGES, "scenes_now", "windows_now"), 0),
        failures=[],
        timings={"wall": 0.0},
        engine=engine,
        _storage=storage,
        _schema=settings.schema,
        elsewhere=holder,
    )
