"""Readers on nodes without a coordinator, lent to one elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ray

from .budget import Budget
from .growth import START_SECONDS
from .pool import Pool, stood

if TYPE_CHECKING:
    from ..pipeline.pools import ReaderNode

log = logging.getLogger("geosweep")


class _Loan:
    """What one node lends."""

    def __init__(self, node: ReaderNode) -> None:
        self.node = node
        self.pixels = Budget(node.budget)
        self.readers: list[Any] = []


class LentReaders:
    """Puts the readers of other nodes into a pool, and takes them out when their nodes are gone.

    Whether a process has died or its whole node is not known at once: Ray takes some seconds to miss a
    node. So a lent reader that dies leaves the pool, and comes back if it stands again.

    Parameters
    ----------
    pool
        The coordinator's readers.
    hire
        Starts a reader on a node, by the node's id.
    dismiss
        Ends one.
    """

    def __init__(
        self,
        pool: Pool,
        hire: Callable[[str], Any],
        dismiss: Callable[[Any], None] = ray.kill,
    ) -> None:
        self._pool, self._hire, self._dismiss = pool, hire, dismiss
        self._loans: dict[str, _Loan] = {}
        self._loan_of: dict[Any, _Loan] = {}
        self._coming: dict[Any, asyncio.Task[bool]] = {}

    def set(self, nodes: Iterable[ReaderNode]) -> None:
        """Take the readers of these nodes, and no longer those of others; doesn't wait for them.

        A node that lends already goes on as it is.
        """
        wanted = {node.node_id: node for node in nodes}
        for loan in list(self._loans.values()):
            if loan.node.node_id not in wanted:
                del self._loans[loan.node.node_id]
                for reader in list(loan.readers):
                    self._drop(reader)
        for node_id, node in wanted.items():
            if node_id not in self._loans:
                loan = self._loans[node_id] = _Loan(node)
                for _ in range(node.readers):
                    reader = self._hire(node_id)
                    loan.readers.append(reader)
                    self._loan_of[reader] = loan
                    self._await(reader)

    def pixels_of(self, reader: Any) -> Budget | None:
        """The budget of the store in which a reader puts its pixels; None for one that isn't lent."""
        loan = self._loan_of.get(reader)
        return loan.pixels if loan is not None else None

    async def is_gone(self, reader: Any) -> bool:
        """Whether a reader that has died was lent, and its node is gone: no scene is to blame for that.

        Waits until that is known.
        """
        if reader not in self._loan_of:
            return reader not in self._pool.actors
        self._pool.remove(reader)
        coming = self._await(reader)
        await asyncio.wait([coming])
        return coming.cancelled() or not coming.result()

    def _await(self, reader: Any) -> asyncio.Task[bool]:
        if reader not in self._coming:
            self._coming[reader] = asyncio.create_task(self._come(reader))
        return self._coming[reader]

    async def _come(self, reader: Any) -> bool:
        """Let a reader into the pool as soon as it stands."""
        stands = await stood(reader.__ray_ready__.remote, START_SECONDS)
        self._coming.pop(reader, None)
        if stands:
            self._pool.add(reader)
        else:
            log.warning("a reader on node %s is gone", self._loan_of[reader].node.node_id[:12])
            self._drop(reader)
        return stands

    def _drop(self, reader: Any) -> None:
        self._loan_of.pop(reader).readers.remove(reader)
        if coming := self._coming.pop(reader, None):
            coming.cancel()
        self._pool.remove(reader)
        self._dismiss(reader)
