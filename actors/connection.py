"""Joining a cluster, or starting a local one."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

import ray

from ..catalog.errors import ClusterError, JobError

LOCAL_STORE_BYTES = 1 << 30


def connect(address: str | None) -> bool:
    """Join a cluster, unless this process is in one already.

    Parameters
    ----------
    address
        Of the cluster; None takes ``RAY_ADDRESS``, and starts one on this machine if that isn't set.

    Returns
    -------
    bool
        Whether the cluster was started here, and so is to be stopped.

    Raises
    ------
    ClusterError
        If it can't be reached.
    JobError
        If the address is one of Ray Client or of a dashboard.
    """
    check_address(address, "--address")
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address, "RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {
            "include_dashboard": False,
            "object_store_memory": LOCAL_STORE_BYTES,
            "address": "local",
        }
    else:
        options |= {"address": address}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises a bare one where a node doesn't come up in time
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise ClusterError(
            f"The Ray cluster at {address or 'this machine'} can't be reached: {reason}; check the "
            "address and that the cluster is up."
        ) from error
    finally:
        # Ray puts its own in its place, which skips what a command says and how it ends.
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    return address is None


def check_address(address: str | None, where: str) -> None:
    """Refuse addresses by which a run would have its driver, and what it reads, outside the cluster.

    Raises
    ------
    JobError
        If the address is one of Ray Client or of a dashboard; `where` names its origin.
    """
    scheme, found, rest = (address or "").partition("://")
    if found:
        host = rest.rpartition("@")[2].partition("/")[0].partition(":")[0]
        raise JobError(
            f"{where} is {scheme}://{host}, by which no run can join a cluster: submit the job with "
            f"`geosweep submit --address http://{host}:8265`, or run it on a node of the cluster with "
            "--address auto."
        )
