"""Progress of a run: bars on a terminal, a log line now and then elsewhere, silence if asked."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from ..catalog.errors import JobError
from .activity import Activity
from .commit import SceneOutcome
from .halving import Halvings
from .run_numbers import RunNumbers

log = logging.getLogger("geosweep")
LINE_EVERY_SECONDS = 30.0
EVERY_VARIABLE = "GEOSWEEP_PROGRESS_SECONDS"
"""Seconds between two lines, where they should be others."""


class SceneBars(Progress):
    """A bar of scenes, and below it the other numbers of a run.

    Parameters
    ----------
    console
        The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._numbers: RunNumbers | None = None
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("scenes"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="progress.remaining"),
            console=console,
        )

    def begin(self, total: int | None, *, visible: bool = True) -> TaskID:
        """Add the bar."""
        return self.add_task("sweeping", total=total, visible=visible, left="")

    def show(self, task: TaskID, numbers: RunNumbers) -> None:
        """Bring all up to date."""
        self._numbers = numbers
        # Rich's own estimate forgets what is older than half a minute, and a scene may take longer.
        left = "" if numbers.seconds_left is None else f"{numbers.time_left} left"
        done, total = numbers.scenes_done, numbers.scenes
        self.update(task, completed=done, total=total, visible=True, left=left)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn."""
        yield from super().get_renderables()
        if self._numbers is not None:
            # The queues on a line of their own, so that nothing is folded at 80 columns.
            load = self._numbers.load.replace(", queues", "\nqueues")
            yield Text(f"{self._numbers.work}\n{load}", style="dim")


class FollowedLog:
    """A run's log on a terminal: lines of progress move a bar below the others.

    Parameters
    ----------
    console
        The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._bars = SceneBars(console)
        self._task = self._bars.begin(None, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def write(self, line: str) -> None:
        """Show a whole line of the log."""
        numbers = RunNumbers.parse(line)
        if numbers is None:
            # Before the bar, which stays below; a log is text, whatever stands in it.
            console = self._bars.console
            console.print(line, end="", markup=False, highlight=False, soft_wrap=True)
            return
        self._bars.show(self._task, numbers)


class RunProgress:
    """Counts what is done and shows it.

    Parameters
    ----------
    total
        Scenes to do.
    show
        False keeps quiet, but for failures.
    console
        Where bars go; a log line every `LINE_EVERY_SECONDS`, or as many as the environment's
        `EVERY_VARIABLE` says, where that is no terminal.
    """

    def __init__(self, total: int, *, show: bool, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bars: SceneBars | None = None
        self._lines = show and not console.is_terminal
        self._every = _seconds_between_lines()
        self._total, self._standing, self._done, self._failed = total, 0, 0, 0
        self._activity = Activity()
        self._start = self._last_line = time.monotonic()
        if show and console.is_terminal:
            self._bars = SceneBars(console)
            self._task = self._bars.begin(total)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        elif self._lines and self._total:
            log.info("%s", self.numbers)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif self._lines and (self._standing or self._done or self._activity.windows):
            log.info("%s", self.numbers)

    def on_start(self) -> None:
        """Note that the engine stands: rates and the time that is left don't count its start."""
        self._start = time.monotonic()

    def on_activity(self, activity: Activity) -> None:
        """Note all that was done so far."""
        self._activity = activity
        self._show()

    def on_standing(self) -> None:
        """Note a scene that an earlier run has done."""
        self._standing += 1
        self._show()

    def on_scene(self, outcome: SceneOutcome) -> None:
        """Note a scene done; a failure is always said."""
        self._done += 1
        if outcome.status == "failed":
            self._failed += 1
            log.warning("scene %s failed: %s", outcome.scene_id, outcome.error)
        self._show()

    @property
    def halvings(self) -> dict[str, Halvings]:
        """Models that ran out of memory."""
        return dict(self._activity.halvings)

    @property
    def numbers(self) -> RunNumbers:
        """How far the run is."""
        activity, seconds = self._activity, max(time.monotonic() - self._start, 1e-9)
        done = self._standing + self._done
        pace = seconds / self._done if self._done else None
        return RunNumbers(
            done,
            self._total,
            self._failed,
            activity.windows,
            round(activity.windows / seconds, 1),
            activity.detections,
            activity.crops,
            round(activity.crops / seconds, 1),
            round(activity.busy, 2),
            round(activity.stored_bytes / 1e9, 3),
            round(activity.decoded_bytes / 1e9, 3),
            activity.queues,
            None if pace is None else round(pace * (self._total - done)),
        )

    def _show(self) -> None:
        now = time.monotonic()
        if self._bars is not None:
            self._bars.show(self._task, self.numbers)
        elif self._lines and now - self._last_line >= self._every:
            self._last_line = now
            log.info("%s", self.numbers)


def _seconds_between_lines() -> float:
    text = os.environ.get(EVERY_VARIABLE)
    try:
        return float(text) if text else LINE_EVERY_SECONDS
    except ValueError:
        raise JobError(f"{EVERY_VARIABLE} is {text!r}, but must be a number of seconds.") from None
