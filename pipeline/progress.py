"""Progress of a run: bars on a terminal, a log line now and then elsewhere, silence if asked."""

from __future__ import annotations

import logging
import time
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

from .commit import SceneOutcome

log = logging.getLogger("geosweep")
LINE_EVERY_SECONDS = 30.0


class RunProgress:
    """Counts what is done and shows it.

    Parameters
    ----------
    total
        Scenes to do.
    show
        False keeps quiet, but for failures.
    console
        Where bars go; a log line every `LINE_EVERY_SECONDS` where that is no terminal.
    """

    def __init__(self, total: int, *, show: bool, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bars: Progress | None = None
        self._lines = show and not console.is_terminal
        self._total, self._done = total, 0
        self._windows = self._detections = 0
        self._start = self._last_line = time.monotonic()
        if show and console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("scenes  {task.fields[detail]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bars.add_task("sweeping", total=total, detail="")

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

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
            log.warning("scene %s failed: %s", outcome.scene_id, outcome.error)
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        rate = self._windows / max(now - self._start, 1e-9)
        detail = f"{self._windows} windows ({rate:.1f}/s), {self._detections} detections"
        if self._bars is not None:
            self._bars.update(self._task, completed=self._done, detail=detail)
        elif self._lines and now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            log.info("%d of %d scenes, %s", self._done, self._total, detail)
