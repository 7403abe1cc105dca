"""Budgets: of bytes alive in the object store, so that it never spills, and of scenes in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any


class Budget:
    """Counts what is in flight; who asks for more than is left waits, first come, first served.

    Parameters
    ----------
    limit
        How much may be in flight. A single request above it is let through alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 1)
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """What is in flight."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not turn.cancelled() for _, turn in self._waiting)

    @property
    def limit(self) -> int:
        """How much may be in flight; what is already may be more after it was lowered."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = max(limit, 1)
        self._wake()

    async def acquire(self, amount: int) -> None:
        """Wait until `amount` fits, and take it."""
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
        """Give back and wake who fits now."""
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
        """Hold so much for a block."""
        await self.acquire(amount)
        try:
            yield
        finally:
            self.release(amount)

    def _fits(self, amount: int) -> bool:
        return self._used == 0 or self._used + amount <= self._limit


class JointBudget:
    """Several budgets from which the same amount is taken, always in this order.

    Who waits for one holds only those before it, and who holds all needs no more: nobody waits for ever.
    """

    def __init__(self, *budgets: Budget) -> None:
        self._budgets = budgets

    async def acquire(self, amount: int) -> None:
        """Wait until `amount` fits into each, and take it from all."""
        for number, budget in enumerate(self._budgets):
            try:
                await budget.acquire(amount)
            except BaseException:
                for held in self._budgets[:number]:
                    held.release(amount)
                raise

    def release(self, amount: int) -> None:
        """Give back to all."""
        for budget in self._budgets:
            budget.release(amount)


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
