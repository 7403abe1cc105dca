"""The in-process engine: a plain loop over the stages, with a scene before and one behind in threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from ..catalog.errors import GeosweepError, ModelError, OutputError, RasterError
from ._finishing import Finishing
from ._stopwatch import Stopwatch
from ._upcoming import OpenedScene, UpcomingScene, open_ahead
from .activity import Activity
from .classify import CropClassifier
from .collect import SceneCollector
from .commit import Committer, SceneOutcome
from .failure import failed_counts
from .jobs_models import load_models
from .scene_crops import SceneCrops
from .scene_reader import SceneReader
from .sweep import batch_for, sweep_windows

if TYPE_CHECKING:
    from ..catalog import Storage
    from .activity import OnActivity
    from .scene_reader import SceneHeader, SceneTask
    from .settings import Settings
    from .stream import StreamCounts

log = logging.getLogger("geosweep")


class LocalEngine:
    """Sweeps scenes one after the other in this process.

    Parameters
    ----------
    settings
        The job.
    storage
        The output.
    on_activity
        Progress callback.
    """

    name = "local"

    def __init__(
        self, settings: Settings, storage: Storage, on_activity: OnActivity | None = None
    ) -> None:
        self._settings = settings
        self._committer = Committer(storage, settings)
        self._on_activity = on_activity
        self._finder, self._crop_models = load_models(settings)
        self._batch_size = batch_for(self._finder, settings)
        self._classifiers = {n: CropClassifier(m, n) for n, m in self._crop_models.items()}
        self._done = Activity()
        self._start = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing outlives the process."""

    @property
    def devices(self) -> list[str]:
        """Where the detector runs."""
        return [self._finder.device]

    def sweep(self, tasks: Iterable[SceneTask]) -> Iterator[SceneOutcome]:
        """Sweep and commit each scene; a scene that fails is recorded as such and passed by.

        While the models look at one, the next is opened and the one before merged and committed.
        """
        with Finishing() as finishing, closing(open_ahead(tasks, self._open)) as scenes:
            for scene in scenes:
                with closing(self._look_at(scene)) as steps:
                    for finish in steps:
                        # Out here, so that what a commit raises is not put to the scene at hand.
                        if finish is None:
                            yield from finishing.outcomes()
                        else:
                            yield from finishing.begin(finish)
            yield from finishing.outcomes(leaving=0)

    def _open(self, task: SceneTask) -> OpenedScene:
        if task.scene.error is not None:
            raise RasterError(task.scene.error)
        reader = SceneReader.open(task, self._settings)
        return OpenedScene.begin(reader, self._batch_size)

    def _look_at(self, scene: UpcomingScene) -> Generator[Callable[[], SceneOutcome] | None]:
        """Take a scene through the models; yields None after each batch, and last how to finish it."""
        task, settings = scene.task, self._settings
        if task.scene.error is not None:  # there is nothing that could be counted
            yield partial(self._committer.fail, task, task.scene.error)
            return
        header: SceneHeader | None = None
        crops = SceneCrops.of(task, settings, self._crop_models)
        watch = Stopwatch()
        try:
            with watch.stage("open"):
                opened = scene.wait()
            reader, header = opened.reader, opened.reader.header
            collector = SceneCollector(header, settings.job.merge)
            for done in sweep_windows(
                reader,
                opened.windows,
                collector,
                task.region,
                settings,
                self._finder,
                self._classifiers,
                crops,
                watch,
            ):
                self._note(done)
                yield None
            finish = partial(self._finish, task, header, collector, reader.counts, watch)
        except (OutputError, ModelError):
            # Not the scene's fault: the run can't go on.
            raise
        except Exception as error:  # one bad scene must not end a continent
            finish = partial(self._fail, task, header, error)
        finally:
            crops.close()
            scene.close()
            halvings = self._finder.take_halvings()
            for classifier in self._classifiers.values():
                halvings |= classifier.halving.take()
            if halvings:
                self._note(Activity(halvings=halvings))
        yield finish

    def _finish(
        self,
        task: SceneTask,
        header: SceneHeader,
        collector: SceneCollector,
        counts: StreamCounts,
        watch: Stopwatch,
    ) -> SceneOutcome:
        try:
            with watch.stage("merge"):
                detections = collector.finish(counts, self._settings.crop_classes)
            return self._committer.succeed(task, header, detections, watch.seconds)
        except (OutputError, ModelError):
            raise
        except Exception as error:
            return self._fail(task, header, error)

    def _fail(self, task: SceneTask, header: SceneHeader | None, error: Exception) -> SceneOutcome:
        reason = str(error)
        if not isinstance(error, GeosweepError):
            log.debug("scene %s failed", task.scene.id, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        counts = failed_counts(task, self._settings.job, header)
        return self._committer.fail(task, reason, counts)

    def _note(self, batch: Activity) -> None:
        self._done += batch
        if self._on_activity is not None:
            stood = time.perf_counter() - self._start
            self._on_activity(replace(self._done, detector_seconds=stood))
