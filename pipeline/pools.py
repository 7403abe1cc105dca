"""How many actors of each kind a node gets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..catalog.errors import ClusterError

if TYPE_CHECKING:
    from .job import Job

BUDGET_SHARE = 0.25
"""Share of a node's object store for pixels between read and crop, and again for crops."""
CLASSIFIER_SHARE = 0.25
"""Share of a GPU that a detector leaves to the crop models."""
DETECTOR_THREADS = 2
"""Threads of a detector on a CPU: beyond two, another actor is the better use of a core."""


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
        Scenes in flight.
    budget
        Bytes that pixels may take in the object store, and crops as many again.
    """

    readers: int
    detectors: int
    croppers: int
    classifiers: int
    gpus: float
    classifier_gpus: float
    threads: int | None
    scenes: int
    budget: int


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
        If the job asks for GPUs on detectors that the node doesn't have.
    """
    wanted = job.cluster.detectors
    given = wanted is not None and wanted.num_gpus is not None
    share = wanted.num_gpus if wanted is not None and wanted.num_gpus is not None else 0.0
    if not given:
        share = 1.0 if gpus >= 1 and job.detector.device != "cpu" else 0.0
    if share > gpus:
        raise ClusterError(
            f"cluster.detectors.num_gpus is {share:g}, but the node has {gpus:g} GPUs; lower it, or 0."
        )
    classifiers = job.cluster.classifiers or 1
    share, rest = _share_gpus(share, int(gpus), classifiers * len(job.crop_models), chosen=given)
    room = _room(share, gpus) if share else max(1, cpus // DETECTOR_THREADS)
    most = wanted.max if wanted is not None and wanted.max is not None else room
    least = wanted.min if wanted is not None else 1
    detectors = max(least, min(most, room))
    readers = job.cluster.readers or max(1, min(detectors, cpus // 4))
    return PoolPlan(
        readers=readers,
        detectors=detectors,
        croppers=job.cluster.croppers or max(1, cpus // 4),
        classifiers=classifiers,
        gpus=share,
        classifier_gpus=rest,
        threads=None if share else max(1, min(DETECTOR_THREADS, cpus)),
        scenes=job.cluster.scenes_in_flight or readers + 1,
        budget=int(store_bytes * BUDGET_SHARE),
    )


def _room(share: float, gpus: float) -> int:
    """Detectors that fit: Ray gives a share of one GPU, or whole ones."""
    return int(gpus) * int(1 / share) if share <= 1 else int(gpus / share)


def _share_gpus(share: float, gpus: int, classifiers: int, *, chosen: bool) -> tuple[float, float]:
    """GPUs of each detector and each classifier.

    A detector by default leaves `CLASSIFIER_SHARE` of its GPU to the classifiers, which are many times
    lighter. A share that the job names is kept, and classifiers get what it leaves of a GPU.
    """
    if share == 0 or classifiers == 0:
        return share, 0.0
    if not chosen:
        share = 1.0 - CLASSIFIER_SHARE
    left = 1.0 - share * int(1 / share) if share < 1 else 0.0
    on_one_gpu = math.ceil(classifiers / max(gpus, 1))
    # Rounded down: shares that add up to more than a GPU by rounding would never be placed.
    return share, math.floor(left / on_one_gpu * 1000 + 1e-6) / 1000
