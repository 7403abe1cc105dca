"""Open one scene, plan its windows and stream them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from affine import Affine

from ..catalog.errors import RasterError
from ..catalog.hrefs import public_href
from ._geo import ground_sample_distance
from .bands import BandRequest, BandSelection, select_bands
from .pixels import PixelSource
from .raster import RasterSource
from .region import Region, WindowPlan
from .stacked import StackedSource
from .stream import StreamCounts, WindowBatch, stream_windows
from .windows import WindowGrid

if TYPE_CHECKING:
    from ..catalog import Scene
    from .job import Job, WindowSpec
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class SceneTask:
    """A scene to sweep, and the part of it that counts."""

    scene: Scene
    region: Region = field(default_factory=Region)


@dataclass(frozen=True, slots=True)
class SceneHeader:
    """What the later stages must know of an opened scene.

    Parameters
    ----------
    grid
        Windows over the level that is read.
    scale
        Raster pixels for each level pixel, x and y.
    model_size
        Side at which the detector gets a full window, None for the window's own pixels.
    transform, crs, size
        Georeferencing and (width, height) of the whole raster.
    outside_aoi, owned_elsewhere
        Windows that were not planned, by reason.
    count
        Channels of a window: the detector's three, and what crop models want besides.
    crop_channels
        Channels of each crop model that wants others than the detector.
    """

    grid: WindowGrid
    scale: tuple[float, float]
    model_size: int | None
    transform: Affine | None
    crs: str | None
    size: tuple[int, int]
    outside_aoi: int
    owned_elsewhere: int
    count: int = 3
    crop_channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def windows_at_once(self, wanted: int) -> int:
        """Windows in a batch: as many as wanted, but in no more bytes than at the detector's own size.

        A window of a raster far finer than the asked resolution, without overviews, may be huge.
        """
        if self.model_size is None:
            return wanted
        return max(1, min(wanted, wanted * self.model_size**2 // self.grid.size**2))


class SceneReader:
    """Streams the windows of one scene; the raster is released by `close`.

    Raises
    ------
    RasterError
        If the raster can't be opened or its bands need a choice.
    """

    def __init__(self, source: PixelSource, windows: WindowSpec, region: Region) -> None:
        self._source = source
        self.header, self._plan = plan_scene(source, windows, region)
        self.counts = StreamCounts()

    @classmethod
    def open(cls, task: SceneTask, settings: Settings, *, threads: int = 2) -> SceneReader:
        """Open a task's raster as the job asks."""
        source = open_scene(task.scene, settings, threads=threads)
        return cls(source, settings.job.windows, task.region)

    def batches(self, batch_size: int) -> Generator[WindowBatch]:
        """Stream the planned windows, at most `batch_size` at a time; `counts` is complete at the end."""
        stream = stream_windows(
            self._source,
            self.header.grid,
            self._plan.wanted,
            batch_size=self.header.windows_at_once(batch_size),
            counts=self.counts,
        )
        try:
            for batch in stream:
                self._count_bytes()
                yield batch
            self._count_bytes()
        finally:
            stream.close()  # type: ignore[attr-defined]

    def _count_bytes(self) -> None:
        self.counts.decoded_bytes = self._source.decoded_bytes
        self.counts.stored_bytes = self._source.stored_bytes

    def close(self) -> None:
        """Release the raster."""
        self._source.close()


def open_scene(scene: Scene, settings: Settings, *, threads: int = 2) -> PixelSource:
    """Open a scene with the job's bands, rescaling and resolution, and those of its crop models."""
    others = {spec.name for spec in settings.job.crop_models if spec.asset is not None}
    requests = {n: bands for n, bands in settings.crop_bands.items() if bands and n not in others}
    return open_raster(scene, settings.job, requests, threads=threads)


def open_raster(
    scene: Scene, job: Job, crops: Mapping[str, BandRequest], *, threads: int = 2
) -> PixelSource:
    """Open a scene's raster, or all of them, with the job's bands, rescaling and resolution.

    Parameters
    ----------
    crops
        What crop models want of it besides.

    Raises
    ------
    RasterError
        Also if the job wants map coordinates and the raster has none.
    """
    selection = select_bands(job.source.bands, job.source.rescale, crops)
    resolution = job.windows.resolution
    opened = partial(RasterSource, threads=threads, sign=job.source.sign)
    source: PixelSource
    if scene.bands:
        parts = scene.bands

        def open_part(name: str, chosen: BandSelection, gsd: float | None) -> RasterSource:
            part = parts[name]
            return opened(part.href, chosen, resolution=gsd, access=part.access)

        source = StackedSource(list(parts), open_part, selection, resolution=resolution)
    else:
        source = opened(scene.href, selection, resolution=resolution, access=scene.access)
    if job.output.crs is not None and (source.transform is None or source.crs is None):
        source.close()
        raise RasterError(
            f"{public_href(scene.href)} has no georeferencing, so its boxes can't be put in "
            f"{job.output.crs}; set output.crs to null (CLI: --crs none) for pixel coordinates."
        )
    return source


def plan_scene(
    source: PixelSource, windows: WindowSpec, region: Region
) -> tuple[SceneHeader, WindowPlan]:
    """Lay windows over an opened raster; the dry run and the sweep both come here."""
    size = source.full_size
    scale = (size[0] / source.width, size[1] / source.height)
    side = windows.size
    if windows.resolution is not None and source.transform is not None:
        level = source.transform @ Affine.scale(*scale)
        gsd = ground_sample_distance(level, (source.width, source.height), source.crs)
        side = max(1, round(windows.size * windows.resolution / gsd))
    grid = WindowGrid.cover(source.width, source.height, side, windows.overlap)
    plan = region.plan(grid, source.transform, source.crs, scale)
    header = SceneHeader(
        grid=grid,
        scale=scale,
        model_size=windows.size if side != windows.size else None,
        transform=source.transform,
        crs=source.crs,
        size=size,
        outside_aoi=plan.outside_aoi,
        owned_elsewhere=plan.owned_elsewhere,
        count=source.count,
        crop_channels=source.crop_channels,
    )
    return header, plan
