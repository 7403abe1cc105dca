"""How many actors of each kind a node gets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..catalog.errors import ClusterError

if TYPE_CHECKING:
    from .cluster_spec import GpuPoolSpec, PoolSpec
    from .job import Job

BUDGET_SHARE = 0.25
"""Share of a node's object store for pixels between read and crop, and again for crops."""
CLASSIFIER_SHARE = 0.25
"""Share of a GPU that a detector leaves to the crop models."""
DETECTOR_THREADS = 2
"""Threads of a detector on a CPU: beyond two, another actor is the better use of a core."""
_PARTS = 10_000
"""Ray counts GPUs in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class Span:
    """Actors in a pool: it starts with `min`, and grows to `max` when work waits for it.

    Raises
    ------
    ValueError
        If it isn't so that 1 ≤ `min` ≤ `max`.
    """

    min: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise ValueError(f"no bounds of a pool: {self.min} to {self.max}")


@dataclass(frozen=True, slots=True)
class ReaderNode:
    """A node without a coordinator that lends readers to one elsewhere.

    Parameters
    ----------
    node_id
        Ray's, in hex.
    readers
        Number of actors.
    budget
        Bytes that their pixels may take in that node's object store.
    """

    node_id: str
    readers: int
    budget: int


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Actors on one node.

    Parameters
    ----------
    readers, detectors, croppers, classifiers
        Numbers of actors; classifiers are for each crop model.
    gpus, classifier_gpus
        GPUs of each detector and of each classifier (0 on a CPU node), which may be fractions.
    threads
        Threads of each detector.
    scenes
        Scenes in flight at most, when there are all the readers.
    budget
        Bytes that pixels may take in the object store, and crops as many again.
    """

    readers: Span
    detectors: Span
    croppers: Span
    classifiers: Span
    gpus: float
    classifier_gpus: float
    threads: int | None
    scenes: int
    budget: int

    def scenes_with(self, readers: int) -> int:
        """Scenes in flight for so many of the readers: their part, rounded up."""
        return max(1, math.ceil(self.scenes * readers / self.readers.max))


def plan_pools(job: Job, *, cpus: int, gpus: float, store_bytes: float) -> PoolPlan:
    """Lay out a node.

    Parameters
    ----------
    cpus, gpus
        What the node has.
    store_bytes
        Size of its object store.

    Raises
    ------
    ClusterError
        If the job asks for more cores or GPUs than the node can give.
    """
    wanted, models = job.cluster, max(len(job.crop_models), 1)
    most = int(gpus) // models if _share_of_detector(job, gpus) else cpus // 4
    if _given(wanted.classifiers) is not None:
        most = 1  # how many of that share there is room for depends on the detectors
    classifiers = _span(wanted.classifiers, 1, most)
    of_all_models = classifiers.max * len(job.crop_models)
    share, rest = _shares(job, gpus, of_all_models)
    room = _room(job, cpus, gpus, share, [rest] * of_all_models)
    detectors = _span(wanted.detectors, room, room)
    detectors = Span(detectors.min, max(detectors.min, min(detectors.max, room)))
    readers = _span(
        wanted.readers, min(detectors.min, cpus // 4), min(detectors.max + 1, cpus // 2)
    )
    return PoolPlan(
        readers=readers,
        detectors=detectors,
        croppers=_span(wanted.croppers, cpus // 4, cpus // 2),
        classifiers=classifiers,
        gpus=share,
        classifier_gpus=rest,
        threads=None if share else max(1, min(DETECTOR_THREADS, cpus)),
        scenes=wanted.scenes_in_flight or readers.max + 1,
        budget=int(store_bytes * BUDGET_SHARE),
    )


def _span(wanted: PoolSpec | None, usual: int, most: int) -> Span:
    """The bounds that the job gives; where it gives none, the usual number and the most."""
    least, top = (wanted.min, wanted.max) if wanted is not None else (None, None)
    if top is None:
        top = max(1, most, least or usual)
    return Span(least or min(max(1, usual), top), top)


def _given(spec: GpuPoolSpec | None) -> float | None:
    return spec.num_gpus if spec is not None else None


def _share_of_detector(job: Job, gpus: float) -> float:
    """GPUs of a detector, if classifiers want none."""
    given = _given(job.cluster.detectors)
    if given is not None:
        return given
    return 1.0 if gpus >= 1 and job.detector.device != "cpu" else 0.0


def _shares(job: Job, gpus: float, classifiers: int) -> tuple[float, float]:
    """GPUs of each detector and each of so many classifiers.

    A detector by default leaves `CLASSIFIER_SHARE` of its GPU to the classifiers, which are many times
    lighter. A share that the job names is kept, and the others get what it leaves of a GPU.
    """
    chosen = _given(job.cluster.detectors) is not None
    share, own = _share_of_detector(job, gpus), _given(job.cluster.classifiers)
    for kind, wanted in ("detectors", share), ("classifiers", own if classifiers else None):
        if wanted is not None and wanted > gpus:
            raise ClusterError(
                f"cluster.{kind}.num_gpus is {wanted:g}, but the node has {gpus:g} GPUs; lower it, or "
                "0."
            )
    if classifiers == 0:
        return share, 0.0
    on_one_gpu = math.ceil(classifiers / max(int(gpus), 1))
    if own is not None:
        left = round(1.0 - own * on_one_gpu, 4)
        # Two shares of a half or less may come to lie on one GPU, with another one idle.
        if share and not chosen and (left > 0.5 or (left > 0 and int(gpus) == 1)):
            share = left
        return share, own
    if share == 0:
        return 0.0, 0.0
    if not chosen:
        share = 1.0 - CLASSIFIER_SHARE
    left = 1.0 - share * int(1 / share) if share < 1 else 0.0
    # Rounded down: shares that add up to more than a GPU by rounding would never be placed.
    return share, math.floor(left / on_one_gpu * 1000 + 1e-6) / 1000


def _room(job: Job, cpus: int, gpus: float, share: float, classifiers: list[float]) -> int:
    """Detectors that the node has room for beside the classifiers' GPUs."""
    wanted, whole = job.cluster.detectors, int(gpus)
    least = (wanted.min if wanted is not None else None) or 1
    if share == 0:
        if least > max(1, cpus):
            raise ClusterError(
                f"cluster.detectors asks for {least} detectors of a core each, but a node has {cpus} "
                "CPUs; lower it."
            )
        if _placeable(whole, classifiers):
            return max(1, cpus // DETECTOR_THREADS)
    most = int((whole - sum(classifiers)) / share + 1e-6) if share else 0
    if _given(wanted) is None:
        most = min(most, whole)
    for room in range(most, least - 1, -1):
        if _placeable(whole, [share] * room + classifiers):
            return room
    beside = (
        f" and {len(classifiers)} classifiers of {classifiers[0]:g}" if sum(classifiers) else ""
    )
    raise ClusterError(
        f"cluster asks for {least} detectors of {share:g} GPUs{beside}, but a node has {gpus:g}; lower "
        "min, max or num_gpus of cluster.detectors or cluster.classifiers."
    )


def _placeable(gpus: int, shares: Iterable[float]) -> bool:
    """Whether all find GPUs in this order: Ray gives whole ones, or a share of the fullest that has it."""
    free = [_PARTS] * gpus
    for share in shares:
        parts = round(share * _PARTS)
        if parts >= _PARTS:
            whole = [number for number, left in enumerate(free) if left == _PARTS]
            taken = whole[: parts // _PARTS]
            if len(taken) < parts // _PARTS:
                return False
            for number in taken:
                free[number] = 0
        elif parts:
            fitting = [left for left in free if left >= parts]
            if not fitting:
                return False
            free[free.index(min(fitting))] -= parts
    return True
