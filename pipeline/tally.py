"""The sum over a plan's records, whichever run made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..catalog._scratch import Scratch
from ..catalog.collection import write_snapshot
from ..catalog.records import record_errors
from .result import COUNTS, Failure, Result

if TYPE_CHECKING:
    from ..catalog import Storage
    from .planner import ScenePlan
    from .settings import Settings


def sum_up(plan: ScenePlan, storage: Storage, settings: Settings, engine: str) -> Result:
    """Add up the records of a plan's scenes, and write the snapshot, in one pass over all records.

    Raises
    ------
    OutputError
        If a record can't be understood.
    """
    counts: dict[str, int] = dict.fromkeys(("scenes", "succeeded", "empty", "failed", *COUNTS), 0)
    counts |= {"scenes": plan.count, "unfinished": plan.count}
    timings: dict[str, float] = {}
    failures: list[Failure] = []
    planned = _membership(plan.ids())

    def add(item: dict[str, Any]) -> None:
        scene_id = str(item.get("id"))
        if planned(scene_id):
            counts["unfinished"] -= 1
            with record_errors(storage, scene_id):
                _add(item, counts, timings, failures)

    write_snapshot(storage, add)
    return Result(
        output=settings.job.output.path,
        counts=counts,
        failures=sorted(failures, key=lambda failure: failure.scene_id),
        timings=timings,
        engine=engine,
        _storage=storage,
        _schema=settings.schema,
        _planned=lambda member: planned(member.scene_id),
    )


def _add(
    item: dict[str, Any],
    counts: dict[str, int],
    timings: dict[str, float],
    failures: list[Failure],
) -> None:
    properties = item["properties"]
    counts[properties["geosweep:status"]] += 1
    for name, value in properties.get("geosweep:counts", {}).items():
        counts[name] = counts.get(name, 0) + value
    for name, value in properties.get("geosweep:timings", {}).items():
        timings[name] = timings.get(name, 0.0) + value
    if properties["geosweep:status"] == "failed":
        failures.append(Failure(item["id"], properties.get("geosweep:error") or "unknown"))


def _membership(ids: Iterable[str]) -> Callable[[str], bool]:
    """Whether a scene is among `ids`, which are put on disk."""
    table = Scratch("CREATE TABLE planned (id TEXT PRIMARY KEY) WITHOUT ROWID")
    table.fill("INSERT INTO planned VALUES (?)", ((name,) for name in ids))
    return lambda name: table.first("SELECT 1 FROM planned WHERE id = ?", (name,)) is not None
