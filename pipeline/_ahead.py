"""Do tasks ahead of whoever wants their results, in threads of their own, and in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_END: Any = object()


def read_ahead(
    readers: Sequence[Callable[[T], R]], tasks: Sequence[T], ahead: int
) -> Generator[R, None, None]:
    """Yield the result of each task in the order of the tasks, whoever was the first to finish.

    An error is raised here, after the results of the tasks before it; no more are begun then. Closing
    the generator lets every thread finish the task that it is at, and waits for it, so that what it
    holds is released.

    Parameters
    ----------
    readers
        Do a task. Each has a thread of its own and takes the next task whenever it has done one.
    tasks
        What is to be done, in order.
    ahead
        Most tasks that are being done, or done and not yet asked for.
    """
    room = threading.Semaphore(ahead)
    lock = threading.Lock()
    taken: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()
    left = iter(tasks)
    stopped = False

    def take() -> tuple[T, Future[R]]:
        """The next task, and a promise of its result that stands in line for the consumer."""
        with lock:
            promise: Future[R] = Future()
            taken.put(promise)
            return _END if stopped else next(left, _END), promise

    def work(read: Callable[[T], R]) -> None:
        nonlocal stopped
        while True:
            room.acquire()
            task, promise = take()
            if task is _END:
                promise.set_result(_END)
                return
            try:
                promise.set_result(read(task))
            except BaseException as error:  # handed to the consumer, who comes no further
                stopped = True
                promise.set_exception(error)

    threads = [
        threading.Thread(target=work, args=(read,), name="geosweep-read-ahead", daemon=True)
        for read in readers
    ]
    for thread in threads:
        thread.start()
    try:
        while True:
            result = taken.get().result()
            if result is _END:
                return
            room.release()
            yield result
    finally:
        stopped = True
        room.release(len(threads))
        for thread in threads:
            thread.join()
