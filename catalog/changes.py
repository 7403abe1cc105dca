"""What has changed in a source since an output was made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._apidelta import api_delta
from ._survey import Survey
from .collection import read_collection
from .errors import OutputError
from .knownheaders import KnownHeaders
from .ledger import Ledger, Standing
from .planfile import PlanFile
from .scene import Scene
from .sources import Source, open_source
from .storage import Storage, open_storage

if TYPE_CHECKING:
    from .spec import SourceSpec


@dataclass(frozen=True, slots=True)
class Changes:
    """A source held against an output.

    Parameters
    ----------
    new
        Scenes without a record.
    changed
        Scenes whose record is of another version of their data, of another job, or under another id.
    removed
        Records of scenes that the source no longer has: deleted there, or no longer within the area,
        time or filter that is asked for.
    unchanged
        How many other scenes there are.
    """

    new: tuple[Scene, ...]
    changed: tuple[Scene, ...]
    removed: tuple[Standing, ...]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.removed)


def changes(
    source: Source | SourceSpec | Mapping[str, Any] | str | Path | Sequence[str | Path],
    output: Storage | str | Path,
    *,
    since: str | None = None,
) -> Changes:
    """Compare a source with an output, without reading rasters or writing anything.

    What is compared, for each item of a collection, is the version of its data: href, `updated` of
    the asset or else of the item, and checksum (ETag, or size and time of a local file), each as the
    source gives it; and the job's fingerprint. Sources that have to be given whole (files, static
    catalogs, rasters, APIs without filter and fields extensions) are looked through once.

    Of an API with these extensions, only items are fetched whose `updated` is at most an hour older
    than the latest one that the output's plan knows, besides a list of all ids, which tells what is
    gone and what is new but dated further back. No clock of ours is involved. Not seen that way is
    data that was replaced in place without a new `updated` on the item, or with one further back than
    that hour; ``since=".."`` looks at everything.

    Parameters
    ----------
    source
        As in `open_source`, or a source that it returned. With a job that crops from other assets or
        bands, give such a source.
    output
        Of a run; a folder, URL or storage.
    since
        Time to search the API from, in place of the plan's, in RFC 3339; ``..`` for everything.

    Returns
    -------
    Changes
        Its size goes with what has changed, not with what there is.

    Raises
    ------
    SourceError
        If the source can't be read, or `since` is no time.
    OutputError
        If there is no output, or a record in it can't be understood.
    """
    storage = open_storage(output) if isinstance(output, str | Path) else output
    collection = read_collection(storage)
    if collection is None:
        raise OutputError(
            f"{storage.uri()} has no collection.json, so it is no output of geosweep: run the job "
            "first"
        )
    opened = source if isinstance(source, Source) else open_source(source)
    found: dict[str, list[Scene]] = {"new": [], "changed": [], "unchanged": []}
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.read(storage))
        fingerprint = collection.get("geosweep:fingerprint")
        survey = stack.enter_context(survey_of(opened, storage, ledger, fingerprint, since))
        for scene, kind in survey:
            if kind != "unchanged":
                found[kind].append(scene)
        removed = tuple(standing for standing, end in survey.gone() if end == "removed")
        return Changes(tuple(found["new"]), tuple(found["changed"]), removed, survey.unchanged)


@contextmanager
def survey_of(
    source: Source, storage: Storage, ledger: Ledger, fingerprint: str | None, since: str | None
) -> Iterator[Survey]:
    """Hold a source against an output's records, with the help of its last plan for the same scenes.

    Parameters
    ----------
    source
        Whose scenes; what the plan knows of them spares it requests.
    storage, ledger
        The output, and its records.
    fingerprint
        Of the job by which scenes count as unchanged.
    since
        As in `changes`.
    """
    with ExitStack() as stack:
        plan = PlanFile.open(storage)
        if plan is not None:
            stack.enter_context(plan)
            plan = plan if plan.key == source.key else None
        if plan is not None:
            source.known = stack.enter_context(KnownHeaders(plan))
        delta = api_delta(source, plan, since)
        scenes = source if delta is None else delta.scenes()
        yield stack.enter_context(Survey(scenes, ledger, fingerprint))
