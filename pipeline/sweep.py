"""One scene through all stages in one process: the loop that the local engine and `predict_tile` run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ._stopwatch import Stopwatch
from .collect import SceneCollector, SceneDetections, stack_probabilities
from .crop import cut_crops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..models import CropModel
    from .crop import ReadRectangle
    from .detect import Found
    from .find import Finder
    from .job import CropModelSpec
    from .region import Region
    from .scene_reader import SceneHeader, SceneReader
    from .settings import Settings
    from .stream import WindowBatch

OnWindows = Callable[[int, int], None]
"""Called with the numbers of windows and detections just done."""


def sweep_scene(
    reader: SceneReader,
    region: Region,
    settings: Settings,
    finder: Finder,
    crop_models: Mapping[str, CropModel],
    read_rectangle: ReadRectangle,
    *,
    watch: Stopwatch | None = None,
    on_windows: OnWindows | None = None,
) -> SceneDetections:
    """Detect, classify and merge one scene.

    Parameters
    ----------
    reader
        The opened scene.
    region
        Its limits.
    finder
        The loaded detector, and tile filter.
    crop_models
        Loaded crop models by column prefix.
    read_rectangle
        For crops whose context leaves their window.
    watch
        Collects seconds for each stage.
    on_windows
        Progress callback.

    Raises
    ------
    RasterError
        If the raster can't be read to its end.
    """
    clock = watch or Stopwatch()
    job, header = settings.job, reader.header
    collector = SceneCollector(header, job.merge)
    batches = reader.batches(settings.batch_size(finder.device))
    try:
        number = 0
        while True:
            with clock.stage("read"):
                batch = next(batches, None)
            if batch is None:
                break
            selected = finder.find(batch, header, region, job.merge.windows, clock)
            classes: dict[str, NDArray[np.float32]] = {}
            for spec in job.crop_models:
                classes[spec.name] = _classify(
                    selected.found,
                    batch,
                    header,
                    spec,
                    crop_models[spec.name],
                    read_rectangle,
                    clock,
                )
            collector.add(number, selected, classes)
            if on_windows is not None:
                on_windows(len(batch.index), len(selected.found))
            number += 1
    finally:
        batches.close()  # type: ignore[attr-defined]
    with clock.stage("merge"):
        return collector.finish(reader.counts, settings.crop_classes)


def _classify(
    found: Found,
    batch: WindowBatch,
    header: SceneHeader,
    spec: CropModelSpec,
    model: CropModel,
    read_rectangle: ReadRectangle,
    clock: Stopwatch,
) -> NDArray[np.float32]:
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(found), spec.batch_size):
        some = found[np.arange(start, min(start + spec.batch_size, len(found)))]
        with clock.stage("crop"):
            expand = model.expand if spec.expand is None else spec.expand
            crops = cut_crops(some, batch, header.grid, expand, read_rectangle)
            prepared = model.prepare(crops)
        with clock.stage("classify"):
            parts.append(model.classify(prepared))
    return stack_probabilities(parts, len(model.labels))
