"""Run an iterator ahead of its consumer, in one thread with a bounded queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def read_ahead(make: Callable[[], Iterator[T]], depth: int = 2) -> Iterator[T]:
    """Yield what `make()` yields, computed up to `depth` items ahead in a thread of its own.

    An exception in the thread is raised here, after the items before it. Closing the generator
    stops the thread at its next item and waits for it, so that whatever it holds is released.
    """
    items: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: tuple[Any, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in make():
                if not offer((item, None)):
                    return
        except BaseException as error:  # handed to the consumer, who decides
            offer((_END, error))
        else:
            offer((_END, None))

    thread = threading.Thread(target=work, name="geosweep-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
