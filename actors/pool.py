"""A pool of like actors: least busy first, and another one when one dies."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from ..catalog.errors import ClusterError

log = logging.getLogger("geosweep")
T = TypeVar("T")

TRIES = 4
"""Times a call is tried before its scene is blamed: an innocent call may sit beside one that kills its
actor, and with fewer tries innocent scenes failed (FACTS: two were too few)."""
RESTART_SECONDS = 0.5
RESTART_PATIENCE_SECONDS = 60.0
"""How long a dead actor may take to stand again before the call is tried all the same."""


class Pool:
    """Actors with one task: calls go to the least busy one.

    A call whose actor dies is tried again, then alone on an actor, so that it can't be taken down by
    its neighbour, nor take one down. Ray restarts the actors themselves.

    Parameters
    ----------
    name
        For messages.
    actors
        Handles of like actors.
    depth
        Calls in flight on each: two keep an actor busy while a result travels.
    stands
        Waits for an actor's answer. Asked before a call whose actor died is tried again: on a busy
        machine a process takes its time to start, and calls that come too early would use up the tries.

    Attributes
    ----------
    open_calls
        Calls that wait for an answer, or still for an actor.
    deaths
        Calls whose actor died.
    """

    def __init__(
        self,
        name: str,
        actors: list[Any],
        depth: int = 2,
        stands: Callable[[Any], Awaitable[Any]] | None = None,
    ) -> None:
        self.name = name
        self._stands = stands
        self.actors = actors
        self._depth = depth
        self._load = [0] * len(actors)
        self.open_calls = self.deaths = 0
        self._waiting: deque[tuple[bool, asyncio.Future[int]]] = deque()

    @property
    def load(self) -> int:
        """Calls in flight."""
        return sum(self._load)

    async def call(self, use: Callable[[Any], Awaitable[T]]) -> T:
        """Run `use(actor)` and await it, again elsewhere if the actor dies.

        Raises
        ------
        GeosweepError
            What the actor's code raised on purpose, unchanged.
        ClusterError
            If `TRIES` actors died of it.
        """
        self.open_calls += 1
        try:
            return await self._call(use)
        finally:
            self.open_calls -= 1

    async def _call(self, use: Callable[[Any], Awaitable[T]]) -> T:
        last: Exception | None = None
        for attempt in range(TRIES):
            place = await self._take(alone=attempt > 0)
            try:
                return await use(self.actors[place])
            except (RayActorError, ActorUnavailableError) as error:
                log.warning("a %s died (try %d of %d)", self.name, attempt + 1, TRIES)
                self.deaths += 1
                last = error
                await asyncio.sleep(RESTART_SECONDS * (attempt + 1))
                await self._wait_for(self.actors[place])
            except RayTaskError as error:
                raise cause_of(error) from error  # which carries the remote traceback
            finally:
                self._give_back(place, alone=attempt > 0)
        raise ClusterError(
            f"A window batch of this scene ended its {self.name}'s process {TRIES} times in a row "
            f"({type(last).__name__}); look at the worker logs for memory or a crash in native code."
        )

    async def _wait_for(self, actor: Any) -> None:
        clock = asyncio.get_running_loop()
        end = clock.time() + RESTART_PATIENCE_SECONDS
        while self._stands is not None and clock.time() < end:
            try:
                await self._stands(actor)
            except RayActorError:
                await asyncio.sleep(RESTART_SECONDS)
            else:
                return

    async def _take(self, *, alone: bool) -> int:
        """Wait for a place; first come, first served, so that nobody waits for ever on a busy pool."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((alone, turn))
        self._hand_out()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back(turn.result(), alone=alone)
            self._hand_out()
            raise

    def _give_back(self, place: int, *, alone: bool) -> None:
        self._load[place] -= self._depth if alone else 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            alone, turn = self._waiting[0]
            if not turn.cancelled():
                least = min(self._load)
                if least >= (1 if alone else self._depth):
                    return
                place = self._load.index(least)
                self._load[place] += self._depth if alone else 1
                turn.set_result(place)
            self._waiting.popleft()


def cause_of(error: RayTaskError) -> Exception:
    """What a remote call raised, as itself."""
    return error.cause if isinstance(error.cause, Exception) else error
