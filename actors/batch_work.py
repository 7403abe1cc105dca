"""What becomes of a batch of windows: detections, and their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..pipeline.activity import Activity
from ..pipeline.collect import settle
from ._tasks import await_all

if TYPE_CHECKING:
    import ray
    from numpy.typing import NDArray

    from ..pipeline.choose import Selected
    from ..pipeline.crop import CropNote
    from ..pipeline.detect import Found
    from ..pipeline.halving import Halvings
    from ..pipeline.settings import Settings
    from .account import Account
    from .budget import Budget, HeldPixels
    from .scene_run import SceneRun
    from .staff import Staff
    from .workers import Announced


class BatchWork:
    """Takes batches through detector, croppers and classifiers.

    Parameters
    ----------
    settings
        The job.
    staff
        Who does it.
    account
        Where it is noted.
    crops
        Bytes that crops may take in the object store.
    """

    def __init__(self, settings: Settings, staff: Staff, account: Account, crops: Budget) -> None:
        self._settings = settings
        self._staff = staff
        self._account = account
        self._crops = crops

    async def do(self, run: SceneRun, number: int, batch: Announced, pixels: HeldPixels) -> None:
        """One batch of windows through detector, croppers and classifiers."""
        self._account.add(run.read_up_to(batch.decoded_bytes, batch.stored_bytes))
        detected: tuple[Selected, float, dict[str, Halvings]] = await self._staff.detectors.call(
            lambda actor: actor.detect.remote(pixels.ref, run.task_ref, run.header_ref)
        )
        selected, seconds, halvings = detected
        run.detect_seconds += seconds
        self._account.add(Activity(detect_seconds=seconds, halvings=halvings))
        count = len(selected.found)
        chunks = [
            (spec.name, selected.found[np.arange(start, min(start + spec.batch_size, count))])
            for spec in self._settings.job.crop_models
            for start in range(0, count, spec.batch_size)
        ]
        pixels.share(len(chunks))
        results = await await_all(
            [self._classify(run, name, some, pixels) for name, some in chunks]
        )
        classified: dict[str, list[tuple[NDArray[np.float32], CropNote]]] = {}
        for (name, _), result in zip(chunks, results, strict=True):
            classified.setdefault(name, []).append(result)
        done = settle(selected, classified, self._settings.crop_classes)
        assert run.collector is not None
        run.collector.add(number, done)
        self._account.add(Activity(windows=batch.windows, detections=len(done.found)))

    async def _classify(
        self, run: SceneRun, name: str, found: Found, pixels: HeldPixels
    ) -> tuple[NDArray[np.float32], CropNote]:
        """Class probabilities of some detections of a batch; their crops live only in here.

        The budget is taken chunk by chunk: the crops of a whole dense batch may be larger than the
        store. How large a chunk is, is known when it is cut; until then the most that it can be counts.
        """

        async def cut(actor: Any) -> tuple[tuple[CropNote, int], ray.ObjectRef]:
            # The note says that the crops are there; they stay in the store.
            told, ref = actor.cut.options(num_returns=2).remote(
                name, found, pixels.ref, run.task_ref, run.header_ref
            )
            return await told, ref

        held = len(found) * self._staff.crop_bytes[name]
        await self._crops.acquire(held)
        try:
            (note, size), crops = await self._staff.croppers.call(cut)
            pixels.leave()
            self._crops.release(held - size)
            held = size
            pool = self._staff.classifiers[name]
            classes: tuple[NDArray[np.float32], dict[str, Halvings]] = await pool.call(
                lambda actor: actor.classify.remote(crops)
            )
            rows, halvings = classes
            self._account.add(Activity(crops=len(rows), halvings=halvings))
            return rows, note
        finally:
            self._crops.release(held)
