"""Scenes opened, and their first windows read, while the one before them is swept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from ..catalog.hrefs import is_remote

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .scene_reader import SceneReader, SceneTask
    from .stream import WindowBatch

AHEAD, AHEAD_REMOTE = 1, 2
"""Scenes that are open before the one that is swept: a small one may be done before the answers of a
server are there that the next needs."""


@dataclass(frozen=True, slots=True)
class OpenedScene:
    """A scene whose first windows are there.

    Parameters
    ----------
    reader
        Of its pixels.
    windows
        All its batches of windows.
    stream
        Those of them that are still to be read.
    """

    reader: SceneReader
    windows: Iterator[WindowBatch]
    stream: Generator[WindowBatch]

    @classmethod
    def begin(cls, reader: SceneReader, batch_size: int) -> OpenedScene:
        """Read the first batch; the thread that reads ahead goes on from there.

        What reading raises is raised by `windows`.
        """
        stream = reader.batches(batch_size)
        try:
            first = list(islice(stream, 1))
        except Exception as error:
            return cls(reader, _raising(error), stream)
        return cls(reader, chain(first, stream), stream)

    def close(self) -> None:
        """Release the raster."""
        self.stream.close()
        self.reader.close()


def _raising(error: Exception) -> Iterator[WindowBatch]:
    raise error
    yield


class UpcomingScene:
    """A scene that is being opened in a thread.

    Parameters
    ----------
    task
        The scene.
    opening
        What becomes of it.
    """

    def __init__(self, task: SceneTask, opening: Future[OpenedScene]) -> None:
        self.task = task
        self._opening = opening

    def wait(self) -> OpenedScene:
        """Wait until it is open; raises what opening raised."""
        return self._opening.result()

    def close(self) -> None:
        """Release what was opened, or is just being opened."""
        if not self._opening.cancel():
            with suppress(Exception):
                self._opening.result().close()


def open_ahead(
    tasks: Iterable[SceneTask], opened: Callable[[SceneTask], OpenedScene]
) -> Generator[UpcomingScene]:
    """Yield scenes that are being opened, each one after the opening of the next has begun.

    Parameters
    ----------
    tasks
        The scenes; taken by the caller's thread, `AHEAD` of them, or `AHEAD_REMOTE` where rasters are
        remote. What they raise is raised here when the scenes before have been yielded.
    opened
        Opens one, in a thread.

    Notes
    -----
    Whoever takes a scene closes it.
    """
    source = iter(tasks)
    waiting: deque[UpcomingScene] = deque()
    failure: Exception | None = None
    with ThreadPoolExecutor(AHEAD_REMOTE, "geosweep-open") as pool:
        try:
            while True:
                while failure is None and len(waiting) <= _ahead(waiting):
                    try:
                        task = next(source)
                    except Exception as error:  # StopIteration, too
                        failure = error
                    else:
                        waiting.append(UpcomingScene(task, pool.submit(opened, task)))
                if waiting:
                    yield waiting.popleft()
                elif isinstance(failure, StopIteration):
                    return
                elif failure is not None:
                    raise failure
        finally:
            for scene in waiting:
                scene.close()


def _ahead(waiting: deque[UpcomingScene]) -> int:
    return AHEAD_REMOTE if waiting and is_remote(waiting[0].task.scene.href) else AHEAD
