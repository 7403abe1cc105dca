"""A byte budget for what is alive in the object store, so that it never spills."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any


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
            else:
                with suppress(ValueError):  # taken out already by a release
                    self._waiting.remove((amount, turn))
                self._wake()
            raise

    def release(self, amount: int) -> None:
        """Give bytes back and wake who fits now."""
        self._used -= amount
        self._wake()

    def _wake(self) -> None:
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


class HeldPixels:
    """A batch's pixels in the object store and their share of a budget, until they are let go.

    A reference that anybody keeps keeps the pixels, so there is only this one.

    Parameters
    ----------
    ref
        Reference to the pixels.
    give_back
        Returns their bytes to the budget.
    """

    def __init__(self, ref: Any, give_back: Callable[[], None]) -> None:
        self.ref = ref
        self._give_back = give_back
        self._users = 1

    def share(self, users: int) -> None:
        """Say how many are to `leave` before the pixels are let go."""
        self._users = users
        if users == 0:
            self.release()

    def leave(self) -> None:
        """One user less."""
        self._users -= 1
        if self._users == 0:
            self.release()

    def release(self) -> None:
        """Let go, whoever still uses them; once."""
        if self.ref is not None:
            self.ref = None
            self._give_back()
