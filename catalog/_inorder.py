"""Slow work on the members of a stream, a few ahead of whoever takes them, in the stream's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 16
AHEAD = 64


def in_order(
    work: Callable[[T], R], stream: Iterable[T], *, slow: Callable[[T], bool]
) -> Iterator[R]:
    """Yield ``work(member)`` for each member of a stream, in its order.

    Parameters
    ----------
    work
        Waits for a server, say; it may be called in several threads at once.
    stream
        Taken from in this thread, at most `AHEAD` members before they are asked for.
    slow
        Which members are worth a thread. Without any there is none, and nothing is taken ahead.
    """
    waiting: deque[Future[R] | tuple[R]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for member in stream:
            if slow(member):
                pool = pool or ThreadPoolExecutor(THREADS, "geosweep-ahead")
                waiting.append(pool.submit(work, member))
            elif not waiting:
                yield work(member)
            else:
                waiting.append((work(member),))
            while waiting and (len(waiting) > AHEAD or _done(waiting[0])):
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _done(entry: Future[R] | tuple[R]) -> bool:
    return isinstance(entry, tuple) or entry.done()


def _result(entry: Future[R] | tuple[R]) -> R:
    return entry[0] if isinstance(entry, tuple) else entry.result()
