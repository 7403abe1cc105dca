"""An asynchronous stream of text, read from code that is not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue

PATIENCE_SECONDS = 300.0
"""How long a cluster may stay away before one gives it up."""


class Tail:
    """Runs a stream in a thread of its own, so that it works inside a notebook's event loop, too.

    Parameters
    ----------
    open_stream
        Gives the stream; called in the thread.
    """

    def __init__(self, open_stream: Callable[[], AsyncIterator[str]]) -> None:
        self._open_stream = open_stream
        self._pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._pump())
        self._thread = threading.Thread(target=self._run, name="geosweep-tail", daemon=True)
        self._thread.start()

    def get(self, timeout: float) -> str | None:
        """The next piece; None at the stream's end.

        Raises
        ------
        queue.Empty
            If nothing comes within `timeout` seconds.
        Exception
            Whatever the stream raised.
        """
        piece = self._pieces.get(timeout=timeout)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def close(self) -> None:
        """Give the stream up."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # it is raised again where it can be dealt with
            self._pieces.put(error)
        else:
            self._pieces.put(None)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _pump(self) -> None:
        async for piece in self._open_stream():
            self._pieces.put(piece)
