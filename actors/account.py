"""What a coordinator's actors have done: for the driver that asks, and for Prometheus."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import ray

from ..pipeline.activity import Activity
from .metrics import Exporter

if TYPE_CHECKING:
    from ..pipeline.commit import SceneOutcome
    from .staff import Staff


class Account:
    """Adds up the work of a staff.

    Parameters
    ----------
    job_name
        For the metrics' tags.
    staff
        Whose queues are told.
    """

    def __init__(self, job_name: str, staff: Staff) -> None:
        self._staff = staff
        self._done = Activity()
        self._detector_seconds = 0.0
        self._detectors = 0
        self._seen = time.monotonic()
        node = ray.get_runtime_context().get_node_id()[:12]
        self._exporter = Exporter(job_name, node)

    def begin(self) -> None:
        """Count the detectors' time from now on, when they stand."""
        self._detectors = len(self._staff.detectors.actors)
        self._seen = time.monotonic()

    def add(self, work: Activity) -> None:
        """Note work that was done."""
        self._done += work

    def scene(self, outcome: SceneOutcome, seconds: float) -> None:
        """Note a scene that was committed."""
        self._exporter.scene(outcome.status, seconds)

    def tell(self) -> Activity:
        """All so far. Prometheus is told, too: so it costs nothing in between."""
        now = time.monotonic()
        # Those that have come since the last time count from now on.
        self._detector_seconds += (now - self._seen) * self._detectors
        self._detectors = len(self._staff.detectors.actors)
        self._seen = now
        pools = self._staff.pools
        activity = replace(
            self._done,
            detector_seconds=self._detector_seconds,
            queues={name: sum(pool.open_calls for pool in some) for name, some in pools.items()},
            actors={name: sum(len(pool.actors) for pool in some) for name, some in pools.items()},
        )
        deaths = {name: sum(pool.deaths for pool in some) for name, some in pools.items()}
        self._exporter.publish(activity, deaths)
        return activity
