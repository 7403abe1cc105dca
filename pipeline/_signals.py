"""SIGTERM ends a run as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType


def terminate_as_interrupt() -> None:
    """Make SIGTERM raise KeyboardInterrupt: schedulers, containers and Ray end programs with it.

    What is committed is kept either way; so the actors are given back, too, and the run says that the
    same command goes on. For the main thread of a command.
    """
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
