"""Run a network over images in parallel on a CPU, each image in one thread of its own.

Convolutions give other last bits with another number of threads. One thread for each image makes a
result independent of how many there are, at nearly the speed of torch's own threads (and better with
many cores, as nobody waits for anybody inside a layer).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_threads(wanted: int | None) -> int:
    """Return the number of threads asked for, or one for each core."""
    return wanted if wanted is not None else available_cores()


def map_in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Return `work` of each item, in order; torch computes each item in one thread."""
    return list(_pool(threads).map(work, items))


def _set_one_thread() -> None:
    # A thread takes over the process's setting when it first asks, even after setting its own: ask
    # first.
    torch.get_num_threads()
    torch.set_num_threads(1)


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "geosweep-cpu", initializer=_set_one_thread)
    # Start all of them now: the setting is each thread's own, but also the default of threads that
    # start later, and those are not ours.
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(together.wait)
    together.wait()
    torch.set_num_threads(before)
    return pool


# A forked child has the pool but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
