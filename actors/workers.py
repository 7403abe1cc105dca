"""The working actors: thin shells around the pipeline's stages."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
import ray

from ..catalog.errors import GeosweepError
from ..pipeline.choose import Selected
from ..pipeline.classify import CropClassifier
from ..pipeline.crop import CropNote
from ..pipeline.crop_pack import CropPack
from ..pipeline.detect import Found
from ..pipeline.jobs_models import load_crop_model_for, load_finder_for
from ..pipeline.rebatch import Rebatcher
from ..pipeline.scene_crops import SceneCrops
from ..pipeline.scene_reader import SceneHeader, SceneReader, SceneTask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..pipeline.halving import Halvings
    from ..pipeline.settings import Settings
    from ..pipeline.stream import StreamCounts, WindowBatch

T = TypeVar("T")


class _Loaded(Generic[T]):
    """A model that an actor loads as it starts.

    An actor whose constructor raises is lost together with the reason, so a model that can't be loaded
    is told to the first who asks for it.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._value: T | None = None
        self._error: GeosweepError | None = None
        try:
            self._value = load()
        except GeosweepError as error:
            self._error = error

    def get(self) -> T:
        if self._error is not None:
            raise self._error
        assert self._value is not None
        return self._value


class Announced(NamedTuple):
    """What is known of a batch of windows, and of its scene's bytes so far, without its pixels."""

    windows: int
    decoded_bytes: int = 0
    stored_bytes: int = 0


class StreamLostError(Exception):
    """The reader was restarted since it opened the scene, and knows nothing of it."""


@ray.remote
class Reader:
    """Opens scenes and streams their windows, reading ahead in a thread for each open scene."""

    def __init__(self, settings: Settings, batch_size: int, threads: int) -> None:
        self._settings = settings
        self._batch_size = batch_size
        self._threads = threads
        self._open: dict[str, tuple[SceneReader, Iterator[WindowBatch]]] = {}

    def open(self, session: str, task: SceneTask) -> SceneHeader:
        """Open a scene; its pixels are then asked for with `next_batch`."""
        reader = SceneReader.open(task, self._settings, threads=self._threads)
        self._open[session] = (reader, reader.batches(self._batch_size))
        return reader.header

    def next_batch(self, session: str) -> tuple[Announced | None, WindowBatch | None]:
        """The next windows after a note on them, or (None, None); call with ``num_returns=2``."""
        if session not in self._open:
            raise StreamLostError
        reader, batches = self._open[session]
        batch = next(batches, None)
        if batch is None:
            return None, None
        return Announced(len(batch.index), *reader.counts.bytes), batch

    def close(self, session: str) -> StreamCounts | None:
        """Release a scene and say what became of its windows; None for one that isn't open."""
        entry = self._open.pop(session, None)
        if entry is None:
            return None
        reader, batches = entry
        batches.close()  # type: ignore[attr-defined]
        reader.close()
        return reader.counts


@ray.remote
class DetectorActor:
    """Holds the detector, and the tile filter before it; on a GPU if it was given one."""

    def __init__(self, settings: Settings, threads: int | None) -> None:
        self._settings = settings
        self._finder = _Loaded(lambda: load_finder_for(settings, threads=threads))

    def device(self) -> str:
        """Where it runs."""
        return self._finder.get().device

    def detect(
        self, batch: WindowBatch, task: SceneTask, header: SceneHeader
    ) -> tuple[Selected, float, dict[str, Halvings]]:
        """Detect in a batch, keep what its windows and its scene own, and say how long it took.

        Last comes whose batches had to be halved.
        """
        mode = self._settings.job.merge.windows
        start = time.perf_counter()
        selected = self._finder.get().find(batch, header, task.region, mode)
        seconds = time.perf_counter() - start
        return selected, seconds, self._finder.get().take_halvings()


@ray.remote
class Cropper:
    """Cuts crops, and prepares those that take less room so or have a transform of their own."""

    OPEN_SCENES = 4

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = _Loaded(
            lambda: {
                spec.name: load_crop_model_for(settings, spec.name, threads=1, computes=False)
                for spec in settings.job.crop_models
            }
        )
        self._scenes: OrderedDict[str, SceneCrops] = OrderedDict()

    def input_bytes(self) -> dict[str, int]:
        """Most that a crop takes on its way to each crop model: the size of the network's input."""
        return {name: 4 * math.prod(m.input_shape) for name, m in self._models.get().items()}

    def cut(
        self, name: str, found: Found, batch: WindowBatch, task: SceneTask, header: SceneHeader
    ) -> tuple[tuple[CropNote, int], CropPack]:
        """Crops of a batch's detections for crop model `name`, after a note on them and their bytes.

        Call with ``num_returns=2``: the note tells the caller that they are there.
        """
        cut = self._crops_of(task).cut(name, found, batch, header)
        pack = CropPack.of(cut.crops, self._models.get()[name])
        return (cut.note, pack.nbytes), pack

    def _crops_of(self, task: SceneTask) -> SceneCrops:
        key = f"{task.scene.id}-{task.scene.source_version}"
        if key not in self._scenes:
            self._scenes[key] = SceneCrops.of(task, self._settings, self._models.get())
            if len(self._scenes) > self.OPEN_SCENES:
                _, oldest = self._scenes.popitem(last=False)
                oldest.close()
        self._scenes.move_to_end(key)
        return self._scenes[key]


@ray.remote
class Classifier:
    """Holds a crop model; puts crops of many windows and scenes together into full batches."""

    def __init__(self, settings: Settings, name: str, threads: int | None) -> None:
        self._model = _Loaded(
            lambda: CropClassifier(load_crop_model_for(settings, name, threads=threads), name)
        )
        spec = next(spec for spec in settings.job.crop_models if spec.name == name)
        self._batches = Rebatcher(lambda crops: self._model.get().classify(crops), spec.batch_size)

    async def classify(self, pack: CropPack) -> tuple[NDArray[np.float32], dict[str, Halvings]]:
        """Class probabilities (N, classes) of crops, and whether batches had to be halved."""
        rows = await self._batches.submit(pack.crops())
        return rows, self._model.get().halving.take()

    async def fill(self) -> float:
        """Mean share of full batches so far."""
        self._model.get()
        return self._batches.fill
