"""Put small requests together into full batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Classify = Callable[[Sequence[Any]], NDArray[np.float32]]

PATIENCE_SECONDS = 0.05


class Rebatcher:
    """Runs `classify` on batches of `size` put together from requests of any size.

    A request may be spread over several batches, and a batch may serve several requests. A batch that
    isn't full goes out when nothing has come for `PATIENCE_SECONDS`, so that nobody waits for company.

    Parameters
    ----------
    classify
        Takes a list of N items and gives (N, classes); runs in one thread of its own, one batch at a time.
    size
        Items in a full batch.
    """

    def __init__(self, classify: Classify, size: int) -> None:
        self._classify = classify
        self._size = size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="geosweep-classify")
        self._queue: deque[_Request] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._batches = self._items = 0

    @property
    def fill(self) -> float:
        """Mean share of a full batch, 0 before the first."""
        return self._items / (self._batches * self._size) if self._batches else 0.0

    async def submit(self, items: Sequence[Any]) -> NDArray[np.float32]:
        """Classify `items`; returns their rows in order."""
        if len(items) == 0:
            return await self._run(items)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        request = _Request(items, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._waiting += len(items)
        self._arrived.set()
        return await request.done

    async def _work(self) -> None:
        while True:
            while self._waiting < self._size:
                self._arrived.clear()
                try:
                    patience = PATIENCE_SECONDS if self._waiting else None
                    await asyncio.wait_for(self._arrived.wait(), patience)
                except TimeoutError:
                    break
            await self._one_batch()

    async def _one_batch(self) -> None:
        shares: list[tuple[_Request, Sequence[Any]]] = []
        room = self._size
        while room and self._queue:
            request = self._queue[0]
            part = request.take(room)
            shares.append((request, part))
            room -= len(part)
            if request.handed_out:
                self._queue.popleft()
        count = self._size - room
        self._waiting -= count
        self._batches += 1
        self._items += count
        try:
            result = await self._run([item for _, part in shares for item in part])
            if len(result) != count:
                raise ModelError(
                    f"The crop model gave {len(result)} rows for {count} crops; it must give one each."
                )
        except Exception as error:  # belongs to those who asked
            for request, _ in shares:
                self._waiting -= request.fail(error)
            if self._queue and self._queue[0].handed_out:
                self._queue.popleft()
            return
        start = 0
        for request, part in shares:
            request.give(result[start : start + len(part)])
            start += len(part)

    async def _run(self, items: Sequence[Any]) -> NDArray[np.float32]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._classify, items)


class _Request:
    """Items that wait for their rows."""

    def __init__(self, items: Sequence[Any], done: asyncio.Future[NDArray[np.float32]]) -> None:
        self._items = items
        self._next = 0
        self._rows: list[NDArray[np.float32]] = []
        self.done = done

    @property
    def handed_out(self) -> bool:
        return self._next == len(self._items)

    def take(self, most: int) -> Sequence[Any]:
        part = self._items[self._next : self._next + most]
        self._next += len(part)
        return part

    def give(self, rows: NDArray[np.float32]) -> None:
        self._rows.append(rows)
        if sum(map(len, self._rows)) == len(self._items) and not self.done.done():
            self.done.set_result(np.concatenate(self._rows))

    def fail(self, error: Exception) -> int:
        """Give up; returns how many items were still to be handed out."""
        left = len(self._items) - self._next
        self._next = len(self._items)
        if not self.done.done():
            self.done.set_exception(error)
        return left
