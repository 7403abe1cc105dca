"""The plan: which scenes, which part of each. The dry run and the sweep walk the same code."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ..catalog import open_storage
from ..catalog.area import area_of_interest
from ..catalog.errors import GeosweepError
from ._geo import pixel_area_m2
from .crop_requests import crop_requests
from .frozen import settle_plan
from .ownership import Ownership
from .region import Region
from .scene_reader import SceneTask, open_raster, plan_scene

if TYPE_CHECKING:
    from ..catalog.planfile import PlanFile
    from .job import Job


class ScenePlan:
    """The scenes of a job and the limits of each; none of them in memory until its turn comes.

    Parameters
    ----------
    job
        The job.
    file
        The frozen plan; stays open for as long as this is in use.
    limit
        Take the first so many scenes only. Ownership still looks at all of them, so that a limited
        run commits the same rows as a full one.

    Attributes
    ----------
    count
        How many scenes.
    """

    def __init__(self, job: Job, file: PlanFile, *, limit: int | None = None) -> None:
        self._file = file
        self.count = file.count if limit is None else min(limit, file.count)
        self._aoi = file.area
        if self._aoi is None:
            self._aoi = area_of_interest(job.source.bbox, job.source.intersects)
        self._ownership = None
        if job.merge.scenes == "latest":
            shared = math.floor(job.windows.size * job.windows.overlap)
            self._ownership = Ownership(file, shared)

    def ids(self) -> Iterator[str]:
        """Ids of the scenes, in order."""
        return islice(self._file.ids(), self.count)

    def tasks(self) -> Iterator[SceneTask]:
        """Each scene with its limits, worked out for a few dozen at a time when they are asked for."""
        scenes = islice(self._file.scenes(), self.count)
        if self._ownership is None:
            limits = ((scene, None) for scene in scenes)
        else:
            limits = self._ownership.limits(scenes)
        for scene, foreign in limits:
            yield SceneTask(scene, Region(self._aoi, foreign))


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a run would do.

    Parameters
    ----------
    scenes, unreadable
        All scenes, and those among them that can't be opened.
    windows
        Windows laid over the scenes; `windows_to_read` are left after `windows_skipped_aoi` and
        `windows_skipped_owned`.
    area_km2
        Ground that the windows to read cover, overlaps within a scene counted once.
    pixels, bytes
        Decoded pixels of the bands that would be read, and their bytes.
    seconds_per_window
        Measured here, on a batch of this detector; None if not measured. A tile filter is counted as
        if it skipped nothing: what it will skip isn't known before the pixels are.
    hours
        Windows to read times that, on one detector.
    cost
        Hours times the price given, in its currency.
    """

    scenes: int
    unreadable: int
    windows: int
    windows_to_read: int
    windows_skipped_aoi: int
    windows_skipped_owned: int
    area_km2: float
    pixels: int
    bytes: int
    seconds_per_window: float | None
    hours: float | None
    cost: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        """As plain numbers, for JSON."""
        return asdict(self)


def plan(
    job: Job,
    *,
    limit: int | None = None,
    measure: bool = True,
    detectors: int = 1,
    price_per_hour: float | None = None,
) -> PlanSummary:
    """Work out what a run would do, reading headers only.

    Parameters
    ----------
    job
        The job.
    limit
        First so many scenes.
    measure
        Load the detector and time a batch, to estimate hours.
    detectors
        Detectors that would work at a time.
    price_per_hour
        Price of one detector's machine, for the cost.

    Raises
    ------
    GeosweepError
        As the run itself would.
    """
    file = settle_plan(job, open_storage(job.output.path), dry=True)
    scenes = ScenePlan(job, file, limit=limit)
    requests = crop_requests(job)
    totals = {"windows": 0, "read": 0, "aoi": 0, "owned": 0, "pixels": 0, "bytes": 0}
    unreadable, area = 0, 0.0
    for task in scenes.tasks():
        try:
            if task.scene.error is not None:
                raise GeosweepError(task.scene.error)
            source = open_raster(task.scene, job, requests, threads=1)
        except GeosweepError:
            unreadable += 1
            continue
        try:
            header, windows = plan_scene(source, job.windows, task.region)
            pixels = _covered_pixels(
                header.grid.xs, header.grid.ys, header.grid.valid, windows.wanted
            )
            totals["windows"] += header.grid.count
            totals["read"] += windows.count
            totals["aoi"] += windows.outside_aoi
            totals["owned"] += windows.owned_elsewhere
            totals["pixels"] += pixels
            totals["bytes"] += round(pixels * source.pixel_bytes)
            if header.transform is not None and header.crs is not None:
                full = pixels * header.scale[0] * header.scale[1]
                area += full * pixel_area_m2(header.transform, header.size, header.crs) / 1e6
        finally:
            source.close()
    seconds = _seconds_per_window(job) if measure else None
    hours = None if seconds is None else totals["read"] * seconds / 3600 / max(detectors, 1)
    cost = None
    if hours is not None and price_per_hour is not None:
        cost = hours * max(detectors, 1) * price_per_hour
    return PlanSummary(
        scenes=scenes.count,
        unreadable=unreadable,
        windows=totals["windows"],
        windows_to_read=totals["read"],
        windows_skipped_aoi=totals["aoi"],
        windows_skipped_owned=totals["owned"],
        area_km2=area,
        pixels=totals["pixels"],
        bytes=totals["bytes"],
        seconds_per_window=seconds,
        hours=hours,
        cost=cost,
    )


def _covered_pixels(
    xs: np.ndarray, ys: np.ndarray, valid: tuple[int, int], wanted: np.ndarray
) -> int:
    """Pixels under the wanted windows, overlaps counted once.

    Along a row of windows, each adds what it does not share with its wanted neighbour; so do rows.
    """
    high, wide = valid
    share_x = np.maximum(xs[:-1] + wide - xs[1:], 0)
    share_y = np.maximum(ys[:-1] + high - ys[1:], 0)
    total = wanted.sum() * wide * high
    total -= ((wanted[:, :-1] & wanted[:, 1:]) * share_x).sum() * high
    total -= ((wanted[:-1] & wanted[1:]) * share_y[:, None]).sum() * wide
    corners = wanted[:-1, :-1] & wanted[:-1, 1:] & wanted[1:, :-1] & wanted[1:, 1:]
    total += (corners * share_x * share_y[:, None]).sum()
    return int(total)


def _seconds_per_window(job: Job) -> float:
    from ..models import available_cores
    from .jobs_models import load_finder_for
    from .settings import Settings
    from .sweep import batch_for

    settings = Settings.resolve(job)
    finder = load_finder_for(settings)
    # A batch as a run has it; on a CPU each core takes a window of it, and more would only take longer.
    number = batch_for(finder, settings)
    if finder.device == "cpu":
        number = min(number, available_cores())
    side = job.windows.size
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 255, (number, 3, side, side), dtype=np.uint8)
    finder.look_at(windows)
    start = time.perf_counter()
    finder.look_at(windows)
    return (time.perf_counter() - start) / number
