"""Which nodes of a cluster sweep, which lend readers to those that do, and what is still missing."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..catalog.errors import ClusterError
from .pools import BUDGET_SHARE, ReaderNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .job import Job

STORE_BYTES = 1 << 30
"""Object store of the cluster that a run starts for itself, and of a node that doesn't say."""
CPUS_A_READER = 2
"""On a node that only reads: a reader decodes with two threads."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a cluster says of a node that is alive.

    Parameters
    ----------
    id, address
        Ray's id of it, and its IP address.
    cpus, gpus
        What it has, used or not.
    store_bytes
        Size of its object store.
    """

    id: str
    address: str
    cpus: float
    gpus: float
    store_bytes: float

    @property
    def name(self) -> str:
        """For messages; several nodes may have one address."""
        return f"{self.address} ({self.id[:12]})"

    @property
    def readers(self) -> int:
        """Readers that it can lend."""
        return max(1, int(self.cpus) // CPUS_A_READER)

    def lent(self) -> ReaderNode:
        """As what a coordinator gets it."""
        return ReaderNode(self.id, self.readers, int(self.store_bytes * BUDGET_SHARE))


def alive(told: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The nodes that are alive, of what `ray.nodes()` tells."""
    return [
        Node(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
            store_bytes=node["Resources"].get("object_store_memory", STORE_BYTES),
        )
        for node in told
        if node["Alive"]
    ]


def runs_on_gpus(job: Job, nodes: Iterable[Node]) -> bool:
    """Whether detectors are to have GPUs: if there are any, or any are asked for.

    Decided once for a run, so that no node that comes later computes on another kind of device.

    Raises
    ------
    ClusterError
        If the autoscaler is asked for CPUs, and the run would be on the GPUs that are there.
    """
    asked, there = job.cluster.autoscale, any(map(_has_gpu, nodes))
    if job.detector.device == "cpu" or asked is None:
        return there and job.detector.device != "cpu"
    if there and asked.unit == "CPU":
        raise ClusterError(
            f"cluster.autoscale asks for {asked.number} CPUs, but the cluster has GPUs, and on them the "
            f"run would be; write cluster.autoscale.gpus, or detector.device: cpu."
        )
    return asked.unit == "GPU"


def sweeping(job: Job, nodes: Iterable[Node], *, on_gpus: bool) -> list[Node]:
    """Nodes that can have a coordinator.

    A GPU that comes into a run on CPUs is left alone, unless the job wants CPUs anyway.
    """
    able = [node for node in nodes if node.cpus >= 1]
    if not on_gpus and job.detector.device == "cpu":
        return able
    return [node for node in able if _has_gpu(node) == on_gpus]


def lending(job: Job, nodes: Iterable[Node], *, on_gpus: bool) -> list[Node]:
    """Nodes that can lend readers to those with a coordinator."""
    if not (job.cluster.reader_nodes and on_gpus):
        return []
    return [node for node in nodes if node.cpus >= 1 and node.gpus == 0]


def divide(
    lenders: Iterable[Node], borrowers: Iterable[str], before: Mapping[str, str]
) -> dict[str, str]:
    """Say who borrows which node: he who has the fewest readers gets the next one.

    What was lent stays where it is, since scenes are read there, but for nodes that even out what a
    newcomer would otherwise lack.

    Parameters
    ----------
    lenders
        Nodes that lend readers.
    borrowers
        Ids of the nodes with a coordinator.
    before
        By the lender's id, who had it until now.

    Returns
    -------
    dict
        By the lender's id, who has it from now on.
    """
    readers = {node.id: node.readers for node in lenders}
    had = Counter(dict.fromkeys(borrowers, 0))
    if not had:
        return {}
    given = {lender: who for lender, who in before.items() if lender in readers and who in had}
    for lender, who in given.items():
        had[who] += readers[lender]

    def give(lender: str) -> None:
        poorest = min(had, key=lambda who: (had[who], who))
        given[lender] = poorest
        had[poorest] += readers[lender]

    for lender in sorted(readers.keys() - given.keys(), key=lambda one: (-readers[one], one)):
        give(lender)
    while True:
        least = min(had.values())
        spare = [one for one, who in given.items() if readers[one] < had[who] - least]
        if not spare:
            return given
        lender = min(spare, key=lambda one: (-had[given[one]], readers[one], one))
        had[given[lender]] -= readers[lender]
        give(lender)


def still_wanted(job: Job, working: Iterable[Node], *, scenes: int | None) -> int:
    """GPUs, or CPUs, that the autoscaler is still to bring.

    Parameters
    ----------
    job
        Whose `cluster.autoscale` says how many in all.
    working
        Nodes that have a coordinator, or are just getting one.
    scenes
        At most so many are left to hand out, and no more are asked for; None if it isn't known.
    """
    asked = job.cluster.autoscale
    if asked is None:
        return 0
    had = sum(node.gpus if asked.unit == "GPU" else node.cpus for node in working)
    missing = max(0, math.ceil(asked.number - had))
    return missing if scenes is None else min(missing, scenes)


def _has_gpu(node: Node) -> bool:
    return node.gpus > 0 and node.cpus >= 1
