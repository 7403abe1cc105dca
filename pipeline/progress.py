"""Progress of a run: bars on a terminal, a log line now and then elsewhere, silence if asked."""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..catalog.errors import JobError
from .commit import SceneOutcome

log = logging.getLogger("geosweep")
LINE_EVERY_SECONDS = 30.0
EVERY_VARIABLE = "GEOSWEEP_PROGRESS_SECONDS"
"""Seconds between two lines, where they should be others."""

_LINE = re.compile(
    r"progress: (?P<scenes_done>\d+) of (?P<scenes>\d+) scenes \((?P<failed>\d+) failed\), "
    r"(?P<windows>\d+) windows \((?P<windows_per_second>[\d.]+)/s\), (?P<detections>\d+) detections"
)


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """How far a run is; windows and detections are its own, scenes those of earlier runs, too.

    As text it is the line of the log, from which `parse` makes it again.
    """

    scenes_done: int
    scenes: int
    failed: int
    windows: int
    windows_per_second: float
    detections: int

    def __str__(self) -> str:
        scenes = f"{self.scenes_done} of {self.scenes} scenes ({self.failed} failed)"
        return f"progress: {scenes}, {self.work}"

    @property
    def work(self) -> str:
        """The part of the line that is not about scenes."""
        windows = f"{self.windows} windows ({self.windows_per_second:.1f}/s)"
        return f"{windows}, {self.detections} detections"

    @classmethod
    def parse(cls, log: str) -> RunNumbers | None:
        """What the last such line of a log says; None if there is none."""
        found = None
        for match in _LINE.finditer(log):
            found = match.groupdict()
        if found is None:
            return None
        rate = float(found.pop("windows_per_second"))
        return cls(windows_per_second=rate, **{key: int(text) for key, text in found.items()})

    def to_dict(self) -> dict[str, float]:
        """As plain numbers."""
        return asdict(self)


def scene_bars(console: Console) -> Progress:
    """A bar of scenes with the time that is left; its tasks have a field ``detail``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("scenes  {task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class FollowedLog:
    """A run's log on a terminal: lines of progress move a bar below the others.

    Parameters
    ----------
    console
        The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._bars = scene_bars(console)
        self._task = self._bars.add_task("sweeping", total=None, visible=False, detail="")

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
        done, total = numbers.scenes_done, numbers.scenes
        detail = numbers.work
        self._bars.update(self._task, completed=done, total=total, visible=True, detail=detail)


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
        self._bars: Progress | None = None
        self._lines = show and not console.is_terminal
        self._every = _seconds_between_lines()
        self._total, self._done, self._failed = total, 0, 0
        self._windows = self._detections = 0
        self._start = self._last_line = time.monotonic()
        if show and console.is_terminal:
            self._bars = scene_bars(console)
            self._task = self._bars.add_task("sweeping", total=total, detail="")

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        elif self._lines and self._total:
            log.info("%s", self.numbers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif self._lines and (self._done or self._windows):
            log.info("%s", self.numbers)

    def on_windows(self, windows: int, detections: int) -> None:
        """Note windows and detections done."""
        self._windows += windows
        self._detections += detections
        self._show()

    def on_standing(self) -> None:
        """Note a scene that an earlier run has done."""
        self._done += 1
        self._show()

    def on_scene(self, outcome: SceneOutcome) -> None:
        """Note a scene done; a failure is always said."""
        self._done += 1
        if outcome.status == "failed":
            self._failed += 1
            log.warning("scene %s failed: %s", outcome.scene_id, outcome.error)
        self._show()

    @property
    def numbers(self) -> RunNumbers:
        """How far the run is."""
        rate = self._windows / max(time.monotonic() - self._start, 1e-9)
        return RunNumbers(
            self._done, self._total, self._failed, self._windows, rate, self._detections
        )

    def _show(self) -> None:
        now = time.monotonic()
        if self._bars is not None:
            self._bars.update(self._task, completed=self._done, detail=self.numbers.work)
        elif self._lines and now - self._last_line >= self._every:
            self._last_line = now
            log.info("%s", self.numbers)


def _seconds_between_lines() -> float:
    text = os.environ.get(EVERY_VARIABLE)
    try:
        return float(text) if text else LINE_EVERY_SECONDS
    except ValueError:
        raise JobError(f"{EVERY_VARIABLE} is {text!r}, but must be a number of seconds.") from None
