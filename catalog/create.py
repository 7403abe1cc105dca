"""Plain rasters to STAC items: stac-geoparquet or an ItemCollection in JSON."""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ._itemtimes import TimeRule
from ._rasteritem import add_file_info, raster_item
from .cogify import SMALL, cog_problems, convert_to_cog
from .errors import JobError, RasterError, SourceError
from .geoparquet import write_items
from .header import header_of, open_raster
from .hrefs import local_path, public_href, stable_href
from .ids import SceneIds
from .localstorage import LocalStorage
from .rasters import list_rasters, raster_stem
from .storage import open_storage

Progress = Callable[[int, int], None]

_THREADS = 8  # for headers over a network; each holds no more than a header or a piece of a file
_SUFFIXES = (".parquet", ".json")


@dataclass(slots=True)
class CreateReport:
    """What became of the rasters.

    Attributes
    ----------
    total, repeated
        Distinct rasters found, and how many were named more than once.
    items
        Written.
    failed
        (href, reason) of each raster without an item.
    not_cog
        (href, what is wrong and what it costs) of each item's raster that is no COG, but for small
        ones, where that costs nothing.
    converted, kept
        COGs made now, and found complete from an earlier time.
    """

    total: int = 0
    repeated: int = 0
    items: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    not_cog: list[tuple[str, list[str]]] = field(default_factory=list)
    converted: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    href: str
    item: dict[str, Any] | None = None
    error: str = ""
    problems: tuple[str, ...] = ()
    converted: bool | None = None  # None where nothing had to be converted


def create_catalog(
    rasters: Iterable[str],
    output: str | Path,
    *,
    datetime: str | None = None,
    datetime_pattern: str | None = None,
    datetime_from_mtime: bool = False,
    checksum: bool = True,
    cogify: str | Path | None = None,
    progress: Progress | None = None,
) -> CreateReport:
    """Write STAC items of plain rasters, with all that is needed to plan without opening them.

    Items have the ids that ``source.rasters`` gives the same rasters, so a job over either finds the
    same detections under the same ids.

    Parameters
    ----------
    rasters
        Files, URLs and folders, as in ``source.rasters``.
    output
        ``….parquet`` (stac-geoparquet) or ``….json`` (ItemCollection), local or in an object store.
    datetime, datetime_pattern, datetime_from_mtime
        See `TimeRule`; without them rasters need a tag with their time.
    checksum
        Whether ``file:checksum`` (SHA-256 as a multihash) is computed, which reads every file.
    cogify
        A folder where rasters that are no COGs are converted to; items then point there. What it
        holds already is kept, and is not taken for a source.
    progress
        Called with (rasters done, rasters in all), from none on.

    Returns
    -------
    CreateReport

    Raises
    ------
    SourceError
        If there is nothing to write, because no raster is found or none becomes an item; or if
        the items don't fit into one table.
    JobError
        If the arguments make no sense.
    OutputError
        If `output` or a COG can't be written; COGs that are complete stay.
    """
    rule = TimeRule(datetime, datetime_pattern, datetime_from_mtime)
    suffix = Path(str(output)).suffix.lower()
    if suffix not in _SUFFIXES:
        raise JobError(f"{output} is neither .parquet nor .json: name the items' file so.")
    parent, _, name = str(output).rpartition("/")
    storage = open_storage(parent or ("/" if str(output).startswith("/") else "."))
    folder = None if cogify is None else Path(cogify).expanduser().absolute()
    if folder is not None:
        LocalStorage(folder).sweep_temporary()
    hrefs, repeated, _ = list_rasters(rasters)
    hrefs = [href for href in hrefs if not _lies_in(href, folder)]
    if not hrefs:
        raise SourceError(f"There is no raster but those in {folder}: name what to convert.")
    storage.check_writable()  # before the work, not after hours of it
    report = CreateReport(total=len(hrefs), repeated=repeated)
    work = partial(_outcome, rule=rule, checksum=checksum, folder=folder)
    # GDAL compresses on all cores by itself, and each conversion takes memory.
    outcomes = _in_order(work, _named(hrefs), threads=1 if folder else _THREADS)
    items = _noted(outcomes, report, progress)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"items{suffix}"
        (_write_parquet if suffix == ".parquet" else _write_json)(items, path, str(output))
        if not report.items:
            _, reason = report.failed[0]
            others = f" (and so on, {report.total} rasters)" if report.total > 1 else ""
            raise SourceError(f"No item can be written: {reason}{others}.")
        storage.put_file(name, path)
    return report


def _named(hrefs: Sequence[str]) -> Iterator[tuple[str, str]]:
    ids = SceneIds(raster_stem(href) for href in hrefs)
    for href in hrefs:
        yield href, ids(raster_stem(href), stable_href(href))


def _outcome(
    named: tuple[str, str],
    *,
    rule: TimeRule,
    checksum: bool,
    folder: Path | None,
) -> _Outcome:
    href, item_id = named
    converted = None
    try:
        with open_raster(href) as raster:
            # Before any conversion, so that what can't become an item costs none.
            times = rule.properties(href, header_of(raster).datetime)
            problems = cog_problems(raster)
        target = href
        if problems and folder is not None:
            target = str(folder / f"{item_id}.tif")
            converted = convert_to_cog(href, Path(target))
        with open_raster(target) as raster:
            problems = cog_problems(raster)
            item = raster_item(raster, target, item_id, times=times, cog=not problems)
            if max(raster.shape) <= SMALL:
                problems = []  # what is read in one go costs nothing more
        add_file_info(item, target, checksum=checksum)
    except (RasterError, SourceError) as error:
        return _Outcome(href, error=str(error))
    return _Outcome(href, item, problems=tuple(problems), converted=converted)


def _noted(
    outcomes: Iterable[_Outcome], report: CreateReport, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """Pass the items on, and note in the report what became of each raster."""
    if progress is not None:
        progress(0, report.total)
    for done, outcome in enumerate(outcomes, 1):
        if outcome.item is None:
            report.failed.append((public_href(outcome.href), outcome.error))
        else:
            report.items += 1
            report.converted += outcome.converted is True
            report.kept += outcome.converted is False
            if outcome.problems:
                report.not_cog.append((public_href(outcome.href), list(outcome.problems)))
            yield outcome.item
        if progress is not None:
            progress(done, report.total)


def _in_order(
    work: Callable[[tuple[str, str]], _Outcome], entries: Iterable[tuple[str, str]], *, threads: int
) -> Iterator[_Outcome]:
    """Do entries side by side and give what comes of them in order, with few of them in memory."""
    waiting: deque[Future[_Outcome]] = deque()
    with ThreadPoolExecutor(threads, "geosweep-create") as pool:
        try:
            for entry in entries:
                waiting.append(pool.submit(work, entry))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _write_parquet(items: Iterator[dict[str, Any]], path: Path, output: str) -> None:
    import pyarrow as pa

    try:
        write_items(items, path)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        # STAC writes NaN as text, so nodata may be text here and a number there.
        reason = str(error).splitlines()[0]
        raise SourceError(
            f"{output} can't hold these rasters in one table, as where some have NaN for nodata and "
            f"some a number ({reason}): name a .json file"
        ) from None


def _write_json(items: Iterator[dict[str, Any]], path: Path, output: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, item in enumerate(items):
            file.write(",\n" if number else "\n")
            json.dump(item, file, allow_nan=False, ensure_ascii=False)
        file.write("\n]}\n")


def _lies_in(href: str, folder: Path | None) -> bool:
    path = local_path(href)
    return folder is not None and path is not None and path.is_relative_to(folder)
