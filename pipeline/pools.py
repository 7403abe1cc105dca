"""How many actors of each kind a node gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..catalog.errors import ClusterError

if TYPE_CHECKING:
    from .job import Job

BUDGET_SHARE = 0.25
"""Share of a node's object store for pixels between read and crop, and again for crops."""
DETECTOR_THREADS = 2
"""Threads of a detector on a CPU: beyond two, another actor is the better use of a core."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Actors on one node.

    Parameters
    ----------
    readers, detectors, croppers, classifiers
        Numbers of actors; classifiers are for each crop model.
    gpus
        GPUs of each detector (0 on a CPU node), which may be a fraction.
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
    share = wanted.num_gpus if wanted is not None and wanted.num_gpus is not None else None
    if share is None:
        share = 1.0 if gpus >= 1 and job.detector.device != "cpu" else 0.0
    if share > gpus:
        raise ClusterError(
            f"cluster.detectors.num_gpus is {share:g}, but the node has {gpus:g} GPUs; lower it, or 0."
        )
    room = int(gpus / share) if share else max(1, cpus // DETECTOR_THREADS)
    most = wanted.max if wanted is not None and wanted.max is not None else room
    least = wanted.min if wanted is not None else 1
    detectors = max(least, min(most, room))
    readers = job.cluster.readers or max(1, min(detectors, cpus // 4))
    return PoolPlan(
        readers=readers,
        detectors=detectors,
        croppers=job.cluster.croppers or max(1, cpus // 4),
        classifiers=job.cluster.classifiers or 1,
        gpus=share,
        threads=None if share else max(1, min(DETECTOR_THREADS, cpus)),
        scenes=job.cluster.scenes_in_flight or readers + 1,
        budget=int(store_bytes * BUDGET_SHARE),
    )
