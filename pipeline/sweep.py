"""One scene through all stages in one process: the loop that the local engine and `predict_tile` run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ._stopwatch import Stopwatch
from .collect import SceneCollector, SceneDetections, settle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..models import CropModel
    from .collect import Classified
    from .crop import CropNote
    from .detect import Found
    from .find import Finder
    from .job import CropModelSpec
    from .region import Region
    from .scene_crops import SceneCrops
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
    crops: SceneCrops,
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
    crops
        Cuts their crops.
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
            classified = {
                spec.name: _classify(
                    selected.found, batch, header, spec, crop_models[spec.name], crops, clock
                )
                for spec in job.crop_models
            }
            done = settle(selected, classified, settings.crop_classes)
            collector.add(number, done)
            if on_windows is not None:
                on_windows(len(batch.index), len(done.found))
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
    crops: SceneCrops,
    clock: Stopwatch,
) -> Classified:
    parts: list[tuple[NDArray[np.float32], CropNote]] = []
    for start in range(0, len(found), spec.batch_size):
        some = found[np.arange(start, min(start + spec.batch_size, len(found)))]
        with clock.stage("crop"):
            cut = crops.cut(spec.name, some, batch, header)
            prepared = model.prepare(cut.crops)
        with clock.stage("classify"):
            parts.append((model.classify(prepared), cut.note))
    return parts
