"""One scene through all stages in one process: the loop that the local engine and `predict_tile` run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from .collect import SceneCollector, SceneDetections, select, stack_probabilities
from .crop import cut_crops
from .detect import detect_batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..models import CropModel, Detector
    from .crop import ReadRectangle
    from .detect import Found
    from .job import CropModelSpec
    from .region import Region
    from .scene_reader import SceneHeader, SceneReader
    from .settings import Settings
    from .stream import WindowBatch

OnWindows = Callable[[int, int], None]
"""Called with the numbers of windows and detections just done."""


class Stopwatch:
    """Seconds spent in each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def sweep_scene(
    reader: SceneReader,
    region: Region,
    settings: Settings,
    detector: Detector,
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
    batches = reader.batches(settings.batch_size(detector.device))
    try:
        number = 0
        while True:
            with clock.stage("read"):
                batch = next(batches, None)
            if batch is None:
                break
            with clock.stage("detect"):
                found = detect_batch(detector, batch, header.grid, header.model_size)
                selected = select(found, header, region, job.merge.windows)
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
