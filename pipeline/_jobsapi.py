"""A cluster's Jobs API over HTTP, with Ray's many ways to fail told in one sentence each.

With the driver the only module of `pipeline/` that imports Ray, and of Ray the HTTP clients alone:
it starts nothing and joins no cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from queue import Empty
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient
from ray.util.state import list_nodes

from ..catalog.errors import ClusterError, GeosweepError, JobError
from ..catalog.hrefs import public_href
from ._tail import PATIENCE_SECONDS, Tail

RAY_MINIMUM = (2, 40)
"""What pyproject.toml asks of Ray; the cluster's own may be another than ours."""

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class JobsApi:
    """The Jobs API of one cluster.

    Parameters
    ----------
    address
        Of the dashboard, such as ``http://head:8265``; ``auto`` looks for a cluster on this machine.
        None is what ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS`` says, else ``auto``.

    Raises
    ------
    ClusterError
        If it can't be reached, wants another token, or runs a Ray that is too old.
    JobError
        If the address is of another kind.
    """

    def __init__(self, address: str | None = None) -> None:
        address = address or next(filter(None, map(os.environ.get, _ADDRESSES)), "auto")
        _check_address(address)
        self.address = public_href(address)
        # Ray reports uploads at a level of its own, whatever the log is set to.
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._reaching(), _without_addresses():
            _knock(address)
            self._client = JobSubmissionClient(address if "://" in address else None)
            self._url = self._client.get_address()
        self.address = public_href(self._url)
        self._check_version()

    def submit(
        self, job_id: str, entrypoint: str, env: dict[str, Any], metadata: dict[str, str]
    ) -> bool:
        """Start a job; False if there is one of this id already."""
        try:
            with self._reaching():
                self._client.submit_job(
                    entrypoint=entrypoint, submission_id=job_id, runtime_env=env, metadata=metadata
                )
        except _TakenError:
            return False
        return True

    def ids(self, start: str) -> list[str]:
        """Ids of all jobs, ended ones too, whose id starts so."""
        with self._reaching():
            jobs = self._client.list_jobs()
        found = (job.submission_id for job in jobs)
        return [job_id for job_id in found if job_id and job_id.startswith(start)]

    def info(self, job_id: str) -> JobDetails:
        """What Ray knows of a job."""
        with self._reaching(job_id):
            return self._client.get_job_info(job_id)

    def logs(self, job_id: str) -> str:
        """The whole log so far."""
        with self._reaching(job_id):
            return self._client.get_job_logs(job_id)

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False if it has ended."""
        with self._reaching(job_id):
            return self._client.stop_job(job_id)

    def tail(self, job_id: str) -> Iterator[str]:
        """Yield the log in pieces until the job has ended, over as many connections as it takes.

        Raises
        ------
        ClusterError
            If the cluster stays away for five minutes. The job may be running all the same.
        """
        seen, away_since = 0, None
        while True:
            try:
                # Lines come every few seconds: where none does, the connection or the job is dead.
                with (
                    contextlib.suppress(Empty),
                    contextlib.closing(Tail(lambda: self._client.tail_job_logs(job_id))) as tail,
                ):
                    place = 0
                    while (piece := tail.get(SILENCE_SECONDS)) is not None:
                        away_since = None
                        place += len(piece)
                        if place > seen:
                            # Each connection begins at the log's first line.
                            yield piece[-(place - seen) :]
                            seen = place
                if self.info(job_id).status.is_terminal():
                    yield self.logs(job_id)[seen:]
                    return
            except JobError:
                raise
            except Exception as error:  # aiohttp, Ray and sockets raise a dozen kinds
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE_SECONDS:
                    raise ClusterError(
                        f"The connection to {self.address} was lost for {PATIENCE_SECONDS / 60:.0f} "
                        f"minutes ({_first_line(error)}); the job may go on: look with "
                        f"`geosweep status {job_id}`."
                    ) from error
                time.sleep(1.0)

    def is_elsewhere(self) -> bool:
        """Whether the cluster has nodes on other machines than this one."""
        with self._reaching(), _without_addresses():
            nodes: list[Any] = list_nodes(self._url, filters=[("state", "=", "ALIVE")])
        return not all(_is_ours(node.node_ip) for node in nodes)

    def _check_version(self) -> None:
        theirs = str(getattr(self._client, "_server_ray_version", None) or "")
        numbers = re.match(r"(\d+)\.(\d+)", theirs)
        if numbers and tuple(map(int, numbers.groups())) < RAY_MINIMUM:
            least = ".".join(map(str, RAY_MINIMUM))
            raise ClusterError(
                f"The cluster at {self.address} runs Ray {theirs}, and geosweep needs {least} or newer: "
                "use a newer image there."
            )

    @contextlib.contextmanager
    def _reaching(self, job_id: str | None = None) -> Iterator[None]:
        """Tell what goes wrong on the way to the cluster, and what it refuses."""
        try:
            yield
        except GeosweepError:
            raise
        except AuthenticationError as error:
            refused = "Authentication failed" in str(error)
            word = "refused the token (403)" if refused else "wants a token (401)"
            raise ClusterError(
                f"The cluster at {self.address} {word}: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the cluster's token, which `ray get-auth-token` prints on its "
                "head."
            ) from None
        except Exception as error:  # requests, sockets and GCS raise a dozen kinds
            answer = str(error)
            if "status code" not in answer:
                raise ClusterError(
                    f"The Ray cluster at {self.address} can't be reached ({_first_line(error)}); check "
                    "the address, and that its dashboard is up."
                ) from error
            if "already exists" in answer:
                raise _TakenError from None
            if job_id is not None and "status code 404" in answer:
                raise JobError(
                    f"The cluster at {self.address} knows no job {job_id}; `ray job list` there shows "
                    "all."
                ) from None
            # The last line of a server's traceback says what it is about.
            last = answer.strip().rstrip(".").splitlines()[-1]
            raise ClusterError(f"The cluster at {self.address} refused: {last}.") from None


class _TakenError(Exception):
    """There is a job of this id."""


def _check_address(address: str) -> None:
    if address == "auto" or address.startswith(("http://", "https://")):
        return
    host = urlsplit(address if "://" in address else f"//{address}").hostname or "HEAD"
    raise JobError(
        f"The address {public_href(address)!r} is not a dashboard's, through which jobs are submitted; "
        f"write http://{host}:8265."
    )


def _knock(address: str) -> None:
    """Fail within seconds where nobody answers: Ray's own requests know no timeout."""
    parts = urlsplit(address)
    if not parts.hostname:
        return
    if getproxies().get(parts.scheme) and not proxy_bypass(parts.hostname):
        return
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()


def _is_ours(address: str) -> bool:
    """Whether an IP address is one of this machine's: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _without_addresses() -> Iterator[None]:
    """Hide variables that would overrule the address: Ray lets them win over what a caller says."""
    held = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
