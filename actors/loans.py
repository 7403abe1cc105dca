"""Nodes that only read, lent to coordinators elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..pipeline.nodes import divide, lending

if TYPE_CHECKING:
    from ..pipeline.job import Job
    from ..pipeline.nodes import Node
    from .seat import Seat

log = logging.getLogger("geosweep")


class Loans:
    """Who has which of the nodes that lend readers.

    Parameters
    ----------
    job
        Whose `cluster.reader_nodes` says whether there are any.
    on_gpus
        Whether detectors have GPUs. Where they don't, all nodes detect.
    """

    def __init__(self, job: Job, *, on_gpus: bool) -> None:
        self._job = job
        self._on_gpus = on_gpus
        self._had_by: dict[str, str] = {}
        if job.cluster.reader_nodes and not on_gpus:
            log.info("all nodes detect: cluster.reader_nodes is for detectors on GPUs")

    def settle(self, nodes: Iterable[Node], seats: Iterable[Seat], *, anew: bool) -> None:
        """Divide the nodes that are there, and tell coordinators for whom that changes something.

        Parameters
        ----------
        nodes
            All that are alive.
        seats
            All coordinators; those that don't stand yet are told when they do.
        anew
            Whether nodes are lent that nobody has: not when no scene is left to begin.
        """
        borrowers = {seat.node.id: seat for seat in seats}
        lenders = {
            node.id: node
            for node in lending(self._job, nodes, on_gpus=self._on_gpus)
            if anew or self._had_by.get(node.id) in borrowers
        }
        self._had_by = divide(lenders.values(), borrowers, self._had_by)
        for borrower, seat in borrowers.items():
            if seat.stands:
                seat.lend([lenders[one] for one, who in self._had_by.items() if who == borrower])
