"""One scene through all stages in one process: the loop that the local engine and `predict_tile` run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from ._stopwatch import Stopwatch
from .activity import Activity
from .collect import SceneCollector, SceneDetections, settle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .classify import CropClassifier
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


def sweep_scene(
    reader: SceneReader,
    region: Region,
    settings: Settings,
    finder: Finder,
    classifiers: Mapping[str, CropClassifier],
    crops: SceneCrops,
) -> SceneDetections:
    """Detect, classify and merge one scene; parameters and errors as of `sweep_windows`."""
    collector = SceneCollector(reader.header, settings.job.merge)
    batches = reader.batches(batch_for(finder, settings))
    with closing(batches):
        for _ in sweep_windows(
            reader, batches, collector, region, settings, finder, classifiers, crops
        ):
            pass
    return collector.finish(reader.counts, settings.crop_classes)


def batch_for(finder: Finder, settings: Settings) -> int:
    """Windows in a batch for a detector that has all of this process's cores."""
    from ..models import available_cores

    return settings.batch_size(finder.device, available_cores())


def sweep_windows(
    reader: SceneReader,
    batches: Iterator[WindowBatch],
    collector: SceneCollector,
    region: Region,
    settings: Settings,
    finder: Finder,
    classifiers: Mapping[str, CropClassifier],
    crops: SceneCrops,
    watch: Stopwatch | None = None,
) -> Iterator[Activity]:
    """Detect in a scene's windows and classify their crops; yields what was done for each batch.

    Parameters
    ----------
    reader, batches
        The opened scene, and its windows.
    collector
        Where detections go.
    region
        Its limits.
    finder
        The loaded detector, and tile filter.
    classifiers
        Loaded crop models by column prefix.
    crops
        Cuts their crops.
    watch
        Collects seconds for each stage.

    Raises
    ------
    RasterError
        If the raster can't be read to its end.
    DeviceMemoryError
        If a model's memory runs out with a single window or crop.
    """
    clock = watch or Stopwatch()
    job, header = settings.job, reader.header
    read = (0, 0)
    for number in count():
        with clock.stage("read"):
            batch = next(batches, None)
        if batch is None:
            return
        start = time.perf_counter()
        selected = finder.find(batch, header, region, job.merge.windows, clock)
        detect_seconds = time.perf_counter() - start
        classified = {
            spec.name: _classify(
                selected.found, batch, header, spec, classifiers[spec.name], crops, clock
            )
            for spec in job.crop_models
        }
        done = settle(selected, classified, settings.crop_classes)
        collector.add(number, done)
        read, before = reader.counts.bytes, read
        yield Activity(
            windows=len(batch.index),
            detections=len(done.found),
            crops=done.counts["crops"],
            decoded_bytes=read[0] - before[0],
            stored_bytes=read[1] - before[1],
            detect_seconds=detect_seconds,
        )


def _classify(
    found: Found,
    batch: WindowBatch,
    header: SceneHeader,
    spec: CropModelSpec,
    classifier: CropClassifier,
    crops: SceneCrops,
    clock: Stopwatch,
) -> Classified:
    parts: list[tuple[NDArray[np.float32], CropNote]] = []
    for start in range(0, len(found), spec.batch_size):
        some = found[np.arange(start, min(start + spec.batch_size, len(found)))]
        with clock.stage("crop"):
            cut = crops.cut(spec.name, some, batch, header)
        with clock.stage("classify"):
            parts.append((classifier.classify(cut.crops), cut.note))
    return parts
