"""What Prometheus is told: the metrics' names, and how they get there.

Ray exports them from each node; it puts ``ray_`` before a name, and ``_total`` behind a counter's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ray.util import metrics

if TYPE_CHECKING:
    from ..pipeline.activity import Activity

log = logging.getLogger("geosweep")

COMMON_TAGS = ("job_name", "node")
"""The job's name and the start of the node's id. Not ``job``: that label is Prometheus' own."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, and what it says.

    Parameters
    ----------
    name
        As Ray gets it.
    kind
        Of Prometheus' kinds.
    description
        One sentence for people.
    tags
        Beside `COMMON_TAGS`.
    boundaries
        Upper ends of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """The names that Prometheus sees."""
        ends = {
            "counter": ("_total",),
            "gauge": ("",),
            "histogram": ("_bucket", "_count", "_sum"),
        }
        return tuple(f"ray_{self.name}{end}" for end in ends[self.kind])


SCENES = Metric("geosweep_scenes", "counter", "Scenes that were committed, by status.", ("status",))
SCENE_SECONDS = Metric(
    "geosweep_scene_seconds",
    "histogram",
    "Wall time of a scene from its arrival at a node to its commit.",
    boundaries=(1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600, 10800),
)
WINDOWS = Metric(
    "geosweep_windows", "counter", "Windows that were looked at; repeated ones count again."
)
DETECTIONS = Metric(
    "geosweep_detections",
    "counter",
    "Detections that their windows kept, before seams are merged; repeated ones count again.",
)
CROPS = Metric("geosweep_crops", "counter", "Crops that were classified, for all crop models.")
DECODED_BYTES = Metric("geosweep_decoded_bytes", "counter", "Bytes of pixels that were decoded.")
STORED_BYTES = Metric(
    "geosweep_stored_bytes",
    "counter",
    "Bytes of the decoded pixels' blocks in their files (TIFF alone; neither headers nor repeats).",
)
DETECT_SECONDS = Metric(
    "geosweep_detect_seconds",
    "counter",
    "Time that detectors spent in detecting: divided by theirs in all, how busy GPUs are.",
)
DETECTOR_SECONDS = Metric(
    "geosweep_detector_seconds", "counter", "Time that detectors stood there, busy or not."
)
QUEUE = Metric(
    "geosweep_queue", "gauge", "Calls to a pool of actors that wait for an answer.", ("pool",)
)
ACTORS = Metric("geosweep_actors", "gauge", "Actors in a pool.", ("pool",))
DEATHS = Metric(
    "geosweep_actor_deaths",
    "counter",
    "Calls whose actor died, and which were tried again.",
    ("pool",),
)
HALVINGS = Metric(
    "geosweep_batch_halvings",
    "counter",
    "Times that a model ran out of memory and went on with half as much at a time.",
)

METRICS = (
    *(SCENES, SCENE_SECONDS, WINDOWS, DETECTIONS, CROPS, STORED_BYTES, DECODED_BYTES),
    *(DETECT_SECONDS, DETECTOR_SECONDS, QUEUE, ACTORS, DEATHS, HALVINGS),
)

_TOTALS = {
    WINDOWS: "windows",
    DETECTIONS: "detections",
    CROPS: "crops",
    DECODED_BYTES: "decoded_bytes",
    STORED_BYTES: "stored_bytes",
    DETECT_SECONDS: "detect_seconds",
    DETECTOR_SECONDS: "detector_seconds",
    HALVINGS: "batch_halvings",
}


class Exporter:
    """Tells Ray's metrics what a node's actors have done, without a call to anybody.

    Metrics are never worth a run: whatever goes wrong here is logged, and that is all.

    Parameters
    ----------
    job_name, node
        The common tags.
    """

    def __init__(self, job_name: str, node: str) -> None:
        self._metrics: dict[Metric, Any] = {}
        self._told: dict[tuple[Metric, str], float] = {}
        with _harmless():
            tags: dict[str, str] = dict(zip(COMMON_TAGS, (job_name, node), strict=True))
            self._metrics = {each: _made(each, tags) for each in METRICS}

    def publish(self, activity: Activity, deaths: Mapping[str, int]) -> None:
        """Bring all metrics up to date; cheap, but not meant for every window.

        Parameters
        ----------
        activity
            All that was done so far.
        deaths
            For each pool, the calls so far whose actor died.
        """
        with _harmless():
            for metric, field in _TOTALS.items():
                self._count_up(metric, getattr(activity, field))
            for pool, number in deaths.items():
                self._count_up(DEATHS, number, pool)
            for metric, values in ((QUEUE, activity.queues), (ACTORS, activity.actors)):
                for pool, value in values.items():
                    self._metrics[metric].set(value, tags={"pool": pool})

    def scene(self, status: str, seconds: float) -> None:
        """Note a scene that was committed."""
        with _harmless():
            self._metrics[SCENES].inc(1, tags={"status": status})
            self._metrics[SCENE_SECONDS].observe(seconds)

    def _count_up(self, metric: Metric, total: float, pool: str = "") -> None:
        more = total - self._told.get((metric, pool), 0)
        if more > 0:
            self._metrics[metric].inc(more, tags={"pool": pool} if pool else None)
            self._told[metric, pool] = total


def _made(metric: Metric, tags: dict[str, str]) -> Any:
    keys: dict[str, Any] = {
        "description": metric.description,
        "tag_keys": COMMON_TAGS + metric.tags,
    }
    if metric.kind == "histogram":
        made: Any = metrics.Histogram(metric.name, boundaries=list(metric.boundaries), **keys)
    else:
        kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        made = kinds[metric.kind](metric.name, **keys)
    return made.set_default_tags(tags)


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception:
        log.debug("metrics could not be told", exc_info=True)
