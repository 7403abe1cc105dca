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


def cpu_threads(wanted: int | None) -> int:
    """Return the number of threads asked for, or one for each core this process may use."""
    return wanted if wanted is not None else len(os.sched_getaffinity(0))


def map_in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Return `work` of each item, in order; torch computes each in a single thread."""
    return list(_pool(threads).map(work, items))


def _one_thread() -> None:
    # A thread takes over the process's setting when it first asks, even after setting its own: ask
    # first.
    torch.get_num_threads()
    torch.set_num_threads(1)


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="geosweep-cpu", initializer=_one_thread)
    # Start all of them now: the setting is each thread's own, but also the default of threads that
    # start later, and those are not ours.
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(together.wait)
    together.wait()
    torch.set_num_threads(before)
    return pool


# A forked child has the pool but not its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
