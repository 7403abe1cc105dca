"""A byte budget for what is alive in the object store, so that it never spills."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """Counts bytes in flight; who asks for more than is left waits, first come, first served.

    Parameters
    ----------
    limit
        Bytes that may be in flight. A single request above it is let through alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 1)
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes in flight."""
        return self._used

    async def acquire(self, amount: int) -> None:
        """Wait until `amount` bytes fit, and take them."""
        if not self._waiting and self._fits(amount):
            self._used += amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(amount)
            raise

    def release(self, amount: int) -> None:
        """Give bytes back and wake who fits now."""
        self._used -= amount
        while self._waiting and self._fits(self._waiting[0][0]):
            amount, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._used += amount
                turn.set_result(None)

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Hold bytes for a block."""
        await self.acquire(amount)
        try:
            yield
        finally:
            self.release(amount)

    def _fits(self, amount: int) -> bool:
        return self._used == 0 or self._used + amount <= self._limit
