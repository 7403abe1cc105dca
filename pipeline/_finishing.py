"""Finished scenes merged and committed in threads, while the next ones are swept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from .commit import SceneOutcome

AT_ONCE = 2
"""Scenes that are finished beside the one that is swept. More would only be more in memory."""


class Finishing:
    """Scenes that are being merged and committed, at most `AT_ONCE`.

    What a commit raises is raised by `outcomes`. At the end those that are begun come to their end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, "geosweep-finish")
        self._under_way: list[Future[SceneOutcome]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin(self, finish: Callable[[], SceneOutcome]) -> Iterator[SceneOutcome]:
        """Finish one more scene; yields the outcomes of others, until there is room for it."""
        yield from self.outcomes(leaving=AT_ONCE - 1)
        self._under_way.append(self._pool.submit(finish))

    def outcomes(self, *, leaving: int = AT_ONCE) -> Iterator[SceneOutcome]:
        """Yield the outcomes that are there, and wait until no more than `leaving` are missing."""
        while True:
            for done in [one for one in self._under_way if one.done()]:
                self._under_way.remove(done)
                yield done.result()
            if len(self._under_way) <= leaving:
                return
            wait(self._under_way, return_when=FIRST_COMPLETED)
