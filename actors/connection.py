"""Joining a cluster, or starting a local one."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any, NamedTuple

import ray

from ..catalog.errors import ClusterError, JobError
from ..pipeline.nodes import STORE_BYTES

log = logging.getLogger("geosweep")

CLIENT_TRIES = 3
"""How often a cluster is asked for a server for Ray Client."""


class Connection(NamedTuple):
    """How this process came to its cluster.

    Parameters
    ----------
    opened
        Whether it was connected here, and so is to be disconnected at the end.
    alone
        Whether the cluster is one of this machine that was started here, and ends with the connection.
    """

    opened: bool
    alone: bool

    def close(self) -> None:
        """Disconnect if this is who connected; no cluster is ended but one that was started here."""
        if self.opened:
            ray.shutdown()


def connect(address: str | None) -> Connection:
    """Join a cluster, unless this process is in one already.

    Parameters
    ----------
    address
        Of the cluster (``ray://`` for Ray Client); None takes ``RAY_ADDRESS``, and starts one on this
        machine if that isn't set.

    Raises
    ------
    ClusterError
        If it can't be reached.
    JobError
        If the address is one of a dashboard.
    """
    check_address(address, "--address")
    if ray.is_initialized():
        return Connection(opened=False, alone=False)
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address, "RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "address": "local",
        }
    else:
        options |= {"address": address}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _start(options)
    except Exception as error:  # Ray raises a bare one where a node doesn't come up in time
        raise ClusterError(
            f"The Ray cluster at {address or 'this machine'} can't be reached: {_reason(error)}; check "
            "the address and that the cluster is up."
        ) from error
    finally:
        # Ray puts its own in its place, which skips what a command says and how it ends.
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    return Connection(opened=True, alone=address is None)


def _start(options: dict[str, Any]) -> None:
    """Join or start a cluster.

    A cluster starts a process for each client, which now and then dies at once; another one lives.
    """
    for left in reversed(range(CLIENT_TRIES)):
        try:
            ray.init(**options)
            return
        except ConnectionError as error:
            if not left or "failure from server" not in str(error):
                raise
            log.warning(
                "%s could not start a server for this client (%s); once more",
                options["address"],
                _reason(error),
            )


def _reason(error: Exception) -> str:
    """The first two lines of what Ray says; of a server's traceback, the last."""
    lines = str(error).strip().splitlines()
    told = [lines[0], lines[-1]] if any("Traceback" in line for line in lines) else lines[:2]
    return " ".join(line.strip() for line in told).removesuffix(".")


def check_address(address: str | None, where: str) -> None:
    """Refuse addresses by which no run can join a cluster.

    Raises
    ------
    JobError
        If the address is one of a dashboard; `where` names its origin.
    """
    scheme, found, rest = (address or "").partition("://")
    if found and scheme != "ray":
        host = rest.rpartition("@")[2].partition("/")[0].partition(":")[0]
        raise JobError(
            f"{where} is {scheme}://{host}, by which no run can join a cluster: submit the job with "
            f"`geosweep submit --address http://{host}:8265`, run it on a node of the cluster with "
            f"--address auto, or by Ray Client with --address ray://{host}:10001."
        )
