"""The Ray engine: joins or starts a cluster, has coordinators set on its nodes, hands out scenes.

Scenes are handed out lazily, few at a time; the driver sees one small outcome for each.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self

import ray
from ray.exceptions import RayTaskError

from ..actors import GONE, Seat, Seats, connect, first_line, told, wait_for
from .commit import Committer, SceneOutcome
from .failure import failed_counts

if TYPE_CHECKING:
    from ..actors.connection import Connection
    from ..catalog import Storage
    from .activity import OnActivity
    from .scene_reader import SceneTask
    from .settings import Settings

SCENE_TRIES = 3
LAST_POLL_SECONDS = 5.0


class RayEngine:
    """Sweeps scenes on a Ray cluster.

    Parameters
    ----------
    settings, storage
        The job and its output. Nodes open the output by its path, so it must be one they all see.
    address
        Cluster to join. None uses the one this process is connected to, or else starts a local one,
        which is stopped at the end; no other cluster ever is.
    on_activity
        Progress callback.
    scenes
        How many scenes there are at most: no more nodes are taken than that.
    keep_idle
        Keep coordinators that have nothing to do until the end, for another call of `sweep`.

    Raises
    ------
    ClusterError
        If the cluster can't be reached, or has no room for the detectors within five minutes.
    JobError
        If the address is one of a dashboard.
    """

    name = "ray"

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        *,
        address: str | None = None,
        on_activity: OnActivity | None = None,
        scenes: int | None = None,
        keep_idle: bool = False,
    ) -> None:
        self._settings = settings
        self._committer = Committer(storage, settings)
        self._address = address
        self._on_activity = on_activity
        self._scenes = scenes
        self._keep_idle = keep_idle
        self._connection: Connection | None = None
        self._seats: Seats | None = None

    @property
    def devices(self) -> list[str]:
        """Where the detectors are; it grows when nodes join."""
        return self._seats.devices if self._seats is not None else []

    def __enter__(self) -> Self:
        self._connection = connect(self._address)
        try:
            self._seats = Seats(self._settings, alone=self._connection.alone)
            self._seats.open(self._scenes)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Return what was taken: the actors, the connection, and the cluster if it is ours."""
        if self._seats is not None:
            with contextlib.suppress(Exception):
                self._seats.close()
        if self._connection is not None:
            self._connection.close()

    def sweep(self, tasks: Iterable[SceneTask]) -> Iterator[SceneOutcome]:
        """Yield outcomes as scenes are committed.

        Raises
        ------
        OutputError, ModelError, ClusterError
            If the run can't go on.
        """
        assert self._seats is not None
        seats = self._seats
        todo = _Tasks(tasks, self._scenes)
        waiting: dict[ray.ObjectRef, tuple[Seat, SceneTask, int]] = {}
        while True:
            for seat, task, attempt in _hand_out(seats, todo):
                waiting[seat.sweep(task)] = (seat, task, attempt)
            if todo.are_over():
                if not waiting:
                    self._tell(LAST_POLL_SECONDS)
                    return
                if not self._keep_idle:
                    seats.release_idle()
            seats.look(todo.left)
            answers = seats.answers()
            for ref in wait_for([*waiting, *answers]):
                if ref in answers:
                    seats.answered(answers[ref], ref)
                    continue
                seat, task, attempt = waiting.pop(ref)
                seat.load -= 1
                try:
                    yield ray.get(ref)
                except RayTaskError as error:
                    raise told(error) from None
                except GONE as error:
                    seats.lost(seat)
                    if attempt < SCENE_TRIES:
                        todo.put_back(task, attempt + 1)
                        continue
                    reason = f"Its coordinator died {SCENE_TRIES} times ({first_line(error)})."
                    counts = failed_counts(task, self._settings.job, None)
                    yield self._committer.fail(task, reason, counts)
            self._tell()

    def _tell(self, patience: float = 0.0) -> None:
        if self._on_activity is not None and self._seats is not None:
            activity = self._seats.progress(patience)
            if activity is not None:
                self._on_activity(activity)


class _Tasks:
    """What is still to be handed out: scenes to be tried again, then those of the source.

    Parameters
    ----------
    tasks
        The source.
    number
        How many it has at most, if that is known.
    """

    def __init__(self, tasks: Iterable[SceneTask], number: int | None) -> None:
        self._next: deque[tuple[SceneTask, int]] = deque()
        self._source = iter(tasks)
        self._unseen = number
        self._exhausted = False

    @property
    def left(self) -> int | None:
        """How many at most; None as long as nobody knows."""
        return None if self._unseen is None else len(self._next) + self._unseen

    def are_over(self) -> bool:
        """Whether none is left, as the source says: it is asked when there should be none."""
        if not self._next and self._unseen == 0:
            self._ask_source()
        return self._exhausted and not self._next

    def put_back(self, task: SceneTask, attempt: int) -> None:
        """To be tried once more."""
        self._next.append((task, attempt))

    def take(self) -> tuple[SceneTask, int] | None:
        """The next scene, and how often it was tried with this time; None if there is none now."""
        if not self._next:
            self._ask_source()
        return self._next.popleft() if self._next else None

    def _ask_source(self) -> None:
        following = None if self._exhausted else next(self._source, None)
        if following is None:
            self._exhausted, self._unseen = True, 0
            return
        self._next.append((following, 1))
        if self._unseen is not None:
            self._unseen = max(0, self._unseen - 1)


def _hand_out(seats: Seats, todo: _Tasks) -> Iterator[tuple[Seat, SceneTask, int]]:
    """Give each free seat the next scene."""
    while free := [seat for seat in seats if seat.stands and seat.load < seat.scenes]:
        following = todo.take()
        if following is None:
            return
        yield min(free, key=lambda seat: seat.load), *following
