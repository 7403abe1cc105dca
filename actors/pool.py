"""A pool of like actors: least busy first, and another one when one dies."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    RayActorError,
    RayTaskError,
)

from ..catalog.errors import ClusterError

log = logging.getLogger("geosweep")
T = TypeVar("T")

TRIES = 4
"""Times a call is tried before its scene is blamed: an innocent call may sit beside one that kills its
actor, and with fewer tries innocent scenes failed (FACTS: two were too few)."""
RESTART_SECONDS = 0.5
RESTART_PATIENCE_SECONDS = 60.0
"""How long a dead actor may take to stand again before the call is tried all the same."""


class _Place:
    """An actor in a pool, and the calls that it has in flight."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.load = 0


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
    changed
        Called when an actor came or went.

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
        changed: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._stands = stands
        self._changed = changed
        self._places = [_Place(actor) for actor in actors]
        self._depth = depth
        self.open_calls = self.deaths = 0
        self._waiting: deque[tuple[bool, asyncio.Future[_Place]]] = deque()

    @property
    def actors(self) -> list[Any]:
        """Those that calls may go to."""
        return [place.actor for place in self._places]

    @property
    def load(self) -> int:
        """Calls in flight on them."""
        return sum(place.load for place in self._places)

    @property
    def waiting(self) -> int:
        """Calls that wait for an actor."""
        return sum(not turn.done() for _, turn in self._waiting)

    def add(self, actor: Any) -> None:
        """Let calls go to one more actor, which stands already."""
        self._places.append(_Place(actor))
        self._hand_out()
        if self._changed is not None:
            self._changed()

    def remove(self, actor: Any) -> None:
        """Let no more calls go to an actor; those in flight on it go on. Nothing if it isn't there."""
        self._places = [place for place in self._places if place.actor != actor]
        if self._changed is not None:
            self._changed()

    async def call(self, use: Callable[[Any], Awaitable[T]], *, alone: bool = False) -> T:
        """Run `use(actor)` and await it, again elsewhere if the actor dies.

        Parameters
        ----------
        use
            Takes an actor.
        alone
            Let nobody else use the actor meanwhile, from the first try on.

        Raises
        ------
        GeosweepError
            What the actor's code raised on purpose, unchanged.
        ClusterError
            If `TRIES` actors died of it.
        """
        self.open_calls += 1
        try:
            return await self._call(use, alone)
        finally:
            self.open_calls -= 1

    async def _call(self, use: Callable[[Any], Awaitable[T]], alone: bool) -> T:
        last: Exception | None = None
        for attempt in range(TRIES):
            place = await self._take(alone=alone)
            try:
                return await use(place.actor)
            except (RayActorError, ActorUnavailableError) as error:
                log.warning("a %s died (try %d of %d)", self.name, attempt + 1, TRIES)
                self.deaths += 1
                last = error
                await asyncio.sleep(RESTART_SECONDS * (attempt + 1))
                await self._wait_for(place)
            except RayTaskError as error:
                raise cause_of(error) from error  # which carries the remote traceback
            finally:
                self._give_back(place, alone=alone)
            alone = True
        raise ClusterError(
            f"A window batch of this scene ended its {self.name}'s process {TRIES} times in a row "
            f"({type(last).__name__}); look at the worker logs for memory or a crash in native code."
        )

    async def _wait_for(self, place: _Place) -> None:
        stands = self._stands
        if stands is not None and place in self._places:
            await stood(lambda: stands(place.actor), RESTART_PATIENCE_SECONDS)

    async def _take(self, *, alone: bool) -> _Place:
        """Wait for a place; first come, first served, so that nobody waits for ever on a busy pool."""
        turn: asyncio.Future[_Place] = asyncio.get_running_loop().create_future()
        self._waiting.append((alone, turn))
        self._hand_out()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back(turn.result(), alone=alone)
            self._hand_out()
            raise

    def _give_back(self, place: _Place, *, alone: bool) -> None:
        place.load -= self._depth if alone else 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._places:
            alone, turn = self._waiting[0]
            if not turn.cancelled():
                place = min(self._places, key=lambda place: place.load)
                if place.load >= (1 if alone else self._depth):
                    return
                place.load += self._depth if alone else 1
                turn.set_result(place)
            self._waiting.popleft()


async def stood(asked: Callable[[], Awaitable[Any]], patience: float) -> bool:
    """Whether an actor answers, asked again and again while its process is being started anew.

    Parameters
    ----------
    asked
        Awaits an answer of it.
    patience
        Seconds until it is given up.

    Returns
    -------
    bool
        False also if it can never stand: its constructor fails, or its node is gone.
    """
    clock = asyncio.get_running_loop()
    end = clock.time() + patience
    while (left := end - clock.time()) > 0:
        try:
            await asyncio.wait_for(asked(), left)
        except (TimeoutError, ActorUnschedulableError):
            return False
        except RayActorError as error:
            if error.actor_init_failed:
                return False
            await asyncio.sleep(RESTART_SECONDS)
        else:
            return True
    return False


def cause_of(error: RayTaskError) -> Exception:
    """What a remote call raised, as itself."""
    return error.cause if isinstance(error.cause, Exception) else error
