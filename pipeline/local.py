"""The in-process engine: a plain loop over the stages."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from ..catalog.errors import GeosweepError, ModelError, OutputError
from ._stopwatch import Stopwatch
from .activity import Activity
from .classify import CropClassifier
from .commit import Committer, SceneOutcome
from .failure import failed_counts
from .jobs_models import load_models
from .scene_crops import SceneCrops
from .scene_reader import SceneReader, SceneTask
from .sweep import sweep_scene

if TYPE_CHECKING:
    from ..catalog import Storage
    from .activity import OnActivity
    from .settings import Settings

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
        """Sweep and commit each scene; a scene that fails is recorded as such and passed by."""
        for task in tasks:
            yield self._sweep_one(task)

    def _sweep_one(self, task: SceneTask) -> SceneOutcome:
        job = self._settings.job
        if task.scene.error is not None:
            return self._committer.fail(task, task.scene.error)
        opened: SceneReader | None = None
        crops = SceneCrops.of(task, self._settings, self._crop_models)
        watch = Stopwatch()
        try:
            with watch.stage("open"):
                opened = reader = SceneReader.open(task, self._settings)
            detections = sweep_scene(
                reader,
                task.region,
                self._settings,
                self._finder,
                self._classifiers,
                crops,
                watch=watch,
                on_batch=self._note,
            )
            return self._committer.succeed(task, reader.header, detections, watch.seconds)
        except (OutputError, ModelError):
            # Not the scene's fault: the run can't go on.
            raise
        except GeosweepError as error:
            header = opened.header if opened is not None else None
            return self._committer.fail(task, str(error), failed_counts(task, job, header))
        except Exception as error:  # one bad scene must not end a continent
            log.debug("scene %s failed", task.scene.id, exc_info=True)
            header = opened.header if opened is not None else None
            reason = f"{type(error).__name__}: {error}"
            return self._committer.fail(task, reason, failed_counts(task, job, header))
        finally:
            crops.close()
            if opened is not None:
                opened.close()
            halvings = self._finder.take_halvings()
            for classifier in self._classifiers.values():
                halvings |= classifier.halving.take()
            if halvings:
                self._note(Activity(halvings=halvings))

    def _note(self, batch: Activity) -> None:
        self._done += batch
        if self._on_activity is not None:
            stood = time.perf_counter() - self._start
            self._on_activity(replace(self._done, detector_seconds=stood))
