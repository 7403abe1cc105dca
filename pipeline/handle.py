"""A job that was submitted to a cluster: its state, its log, its end and its result."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..catalog.errors import ClusterError, GeosweepError
from ._bundle import INTERRUPTED, REPORT, SAID
from ._tail import PATIENCE_SECONDS
from .progress import RunNumbers
from .reported import reported

if TYPE_CHECKING:
    from ._jobsapi import JobDetails, JobsApi
    from .result import Result

StateName = Literal["pending", "running", "succeeded", "failed", "stopped"]

STOP_SECONDS = 30
"""That a job has to end, once it is told to."""

_POLL_SECONDS = 1.0
_CLUSTER_ERROR = ClusterError.exit_code


class Writer(Protocol):
    """Takes text, such as an open file."""

    def write(self, text: str, /) -> object:
        """Take a line."""
        ...


@dataclass(frozen=True, slots=True)
class JobState:
    """What is known of a submitted job.

    Parameters
    ----------
    id
        Submission id.
    state
        ``succeeded`` means exit code 0; a run of which some scenes failed is ``failed``, with exit
        code 1.
    message
        One sentence, where it failed.
    exit_code
        The code that ``geosweep run`` would have ended with; None while it runs.
    started, ended
        Times, in UTC.
    progress
        Numbers of the run, at most ten seconds old; None before its first scene.
    """

    id: str
    state: StateName
    message: str
    exit_code: int | None
    started: datetime | None
    ended: datetime | None
    progress: RunNumbers | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "id": self.id,
            "state": self.state,
            "message": self.message,
            "exit_code": self.exit_code,
            "started": self.started.isoformat() if self.started else None,
            "ended": self.ended.isoformat() if self.ended else None,
            "progress": self.progress.to_dict() if self.progress else None,
        }


class JobHandle:
    """A submitted job; `submit` gives one, and `JobHandle.attach` one of a job that is there.

    Attributes
    ----------
    id
        Submission id, by which Ray's dashboard and command line know it, too.
    address
        Of the dashboard.
    attached
        Whether the job was there already.
    """

    def __init__(self, api: JobsApi, job_id: str, *, attached: bool) -> None:
        self._api = api
        self.id = job_id
        self.address = api.address
        self.attached = attached

    @classmethod
    def attach(cls, job_id: str, address: str | None = None) -> JobHandle:
        """A handle of a job that was submitted before.

        Raises
        ------
        JobError
            If the cluster knows no such job.
        ClusterError
            If the cluster can't be reached.
        """
        from ._jobsapi import JobsApi

        handle = cls(JobsApi(address), job_id, attached=True)
        handle._api.info(job_id)
        return handle

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, {self.address!r})"

    def status(self) -> JobState:
        """State and numbers."""
        info = self._api.info(self.id)
        state = _state(info)
        log = "" if state == "pending" else self._api.logs(self.id)
        return JobState(
            id=self.id,
            state=state,
            message=_reason(info, log) if state == "failed" else "",
            exit_code=_exit_code(info) if info.status.is_terminal() else None,
            started=_time(info.start_time),
            ended=_time(info.end_time),
            progress=RunNumbers.parse(log),
        )

    def logs(self) -> str:
        """The log so far."""
        return "".join(_readable([self._api.logs(self.id)]))

    def follow(self, out: Writer | None = None) -> int:
        """Write the log as it grows until the job has ended.

        A connection that drops is made again. Interrupting ends the following, not the job.

        Parameters
        ----------
        out
            Where each line is written, with its end; default is standard output.

        Returns
        -------
        int
            The job's exit code: 0, 1 if some scenes failed, 2 or 3 for errors, 130 if it was stopped.

        Raises
        ------
        ClusterError
            If the cluster stays away for five minutes.
        """
        target = out or sys.stdout
        for line in _readable(self._api.tail(self.id)):
            target.write(line)
            if target is sys.stdout:
                sys.stdout.flush()
        return _exit_code(self._api.info(self.id))

    def stop(self) -> bool:
        """Stop the job, and wait until it has ended; False if it had ended before.

        Scenes that are committed stay, and the same job, submitted again, goes on with the others.
        """
        asked = self._api.stop(self.id)
        try:
            self._wait(STOP_SECONDS + 30.0)
        except TimeoutError:
            raise ClusterError(
                f"{self.id} was told to stop and still runs after {STOP_SECONDS + 30} s; look at "
                f"{self.address} what holds it."
            ) from None
        return asked

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end, and give the run's report.

        Parameters
        ----------
        timeout
            Seconds to wait at most.

        Raises
        ------
        GeosweepError
            With the run's own sentence, if it failed as a whole; `ClusterError` if it was stopped or
            died, or if the cluster stays away for five minutes.
        TimeoutError
            If the job runs on after `timeout`.
        """
        info = self._wait(timeout)
        log = self._api.logs(self.id)
        for line in reversed(log.splitlines()):
            if line.startswith(REPORT):
                return reported(json.loads(line.removeprefix(REPORT)))
        if _exit_code(info) == INTERRUPTED:
            raise ClusterError(f"{self.id} was stopped before its end; submit it again to go on.")
        raise _error_of(_exit_code(info))(_reason(info, log))

    def _wait(self, timeout: float | None) -> JobDetails:
        """What Ray knows of the job when it has ended."""
        seen = time.monotonic()
        for _ in waiting(timeout):
            try:
                info = self._api.info(self.id)
            except ClusterError:
                if time.monotonic() - seen > PATIENCE_SECONDS:
                    raise
                continue
            if info.status.is_terminal():
                return info
            seen = time.monotonic()
        raise TimeoutError(f"{self.id} still runs.")


def waiting(seconds: float | None) -> Iterator[None]:
    """Ticks, quickly at first, until the time is over."""
    end = None if seconds is None else time.monotonic() + seconds
    pause = 0.1
    while True:
        yield
        if end is not None and time.monotonic() + pause > end:
            return
        time.sleep(pause)
        pause = min(pause * 1.5, _POLL_SECONDS)


def _readable(pieces: Iterator[str] | Sequence[str]) -> Iterator[str]:
    """Whole lines of a log that comes in pieces, without those that are meant for programs."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from (f"{line}\n" for line in lines if not line.startswith(REPORT))
    if rest and not rest.startswith(REPORT):
        yield rest


def _state(info: Any) -> StateName:
    return info.status.value.lower()


def _exit_code(info: Any) -> int:
    state = info.status.value
    if state == "SUCCEEDED":
        return 0
    if state == "STOPPED":
        return INTERRUPTED
    code = info.driver_exit_code
    # None or a signal's number: its node died, or its environment could not be set up.
    return code if code is not None and code > 0 else _CLUSTER_ERROR


def _reason(info: Any, log: str) -> str:
    """Why a job failed, in a sentence: geosweep's own, or else the last that it or Ray said."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(SAID)]
    if said:
        return said[-1].removeprefix(SAID)
    if any(line.startswith(REPORT) for line in lines):
        return "Some scenes failed."
    if info.driver_exit_code is not None and lines:
        return f"It ended with exit code {info.driver_exit_code}: {lines[-1].rstrip('.')}."
    # Ray tells of its own failures in many lines, of which the first says what happened.
    message = str(info.message or "").strip().splitlines() or ["it gave no reason"]
    return f"Ray ended it: {message[0].rstrip('.')}."


def _error_of(exit_code: int) -> type[GeosweepError]:
    return ClusterError if exit_code == _CLUSTER_ERROR else GeosweepError


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
