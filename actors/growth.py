"""Pools that grow with what waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import ray

from .pool import Pool, stood

if TYPE_CHECKING:
    from ..pipeline.pools import Span

log = logging.getLogger("geosweep")

LOOK_SECONDS = 0.5
SIGNS = 6
"""So many looks at which work waited, less those at which none did, hire an actor: three seconds."""
START_SECONDS = 300.0
"""How long a new actor may take to stand: its node may be busy, and its model large."""
REST_SECONDS = 60.0
"""How long no other one is tried after one that came to nothing."""


class GrowingPool(Pool):
    """Hires one more actor, and another, while work waits for it; none is ever let go.

    An actor that can't be placed, or doesn't come to stand, is given up without harm: the pool is as it
    was, and tries again later.

    Parameters
    ----------
    name, depth, stands, changed
        As of every `Pool`.
    span
        Actors that it starts with, and may have.
    hire
        Starts an actor.
    prove
        Awaits an answer by which an actor is known to be fit for work.
    wanted
        Whether one more would have something to do just now; without it, whether calls wait.
    dismiss
        Ends an actor that is given up.

    Attributes
    ----------
    size
        Actors that it has hired and that stand, dead or alive.
    """

    def __init__(
        self,
        name: str,
        span: Span,
        hire: Callable[[], Any],
        prove: Callable[[Any], Awaitable[Any]],
        *,
        depth: int = 2,
        stands: Callable[[Any], Awaitable[Any]] | None = None,
        changed: Callable[[], None] | None = None,
        wanted: Callable[[], bool] | None = None,
        dismiss: Callable[[Any], None] = ray.kill,
    ) -> None:
        super().__init__(name, [hire() for _ in range(span.min)], depth, stands, changed)
        self.size, self._most = span.min, span.max
        self._hire, self._prove, self._dismiss = hire, prove, dismiss
        self._wanted = wanted or (lambda: self.waiting > 0)
        self._signs = 0
        self._rest_until = 0.0
        self._hiring: asyncio.Task[None] | None = None

    async def proven(self) -> list[Any]:
        """The answers of the actors that it starts with, when all are fit for work."""
        return await asyncio.gather(*(self._prove(actor) for actor in self.actors))

    @property
    def may_grow(self) -> bool:
        """Whether there may be more of them."""
        return self.size < self._most

    def look(self) -> None:
        """See whether work waits, and hire if it has for long; to be called every `LOOK_SECONDS`."""
        resting = asyncio.get_running_loop().time() < self._rest_until
        if not self.may_grow or resting or self._hiring is not None:
            return
        self._signs = max(0, self._signs + (1 if self._wanted() else -1))
        if self._signs >= SIGNS:
            self._signs = 0
            self._hiring = asyncio.create_task(self._hire_one())

    async def _hire_one(self) -> None:
        reason, actor = "it didn't come to stand", self._hire()
        try:
            stands = await stood(lambda: self._prove(actor), START_SECONDS)
        except Exception as error:  # whatever its model says: those that stand go on
            stands, reason = False, str(error)
        finally:
            self._hiring = None
        if stands:
            self.size += 1
            self.add(actor)
            log.info("one more %s, now %d", self.name, self.size)
            return
        log.warning("no more than %d %ss: %s", self.size, self.name, reason)
        self._rest_until = asyncio.get_running_loop().time() + REST_SECONDS
        self._dismiss(actor)


async def keep_growing(pools: Iterable[GrowingPool]) -> None:
    """Look at pools now and then, until none may grow any more."""
    left = list(pools)
    while left := [pool for pool in left if pool.may_grow]:
        await asyncio.sleep(LOOK_SECONDS)
        for pool in left:
            pool.look()
