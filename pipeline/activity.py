"""What an engine has done so far and is at: the numbers behind progress and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .halving import Halvings, add_halvings

POOLS = ("readers", "detectors", "croppers", "classifiers")


@dataclass(frozen=True, slots=True)
class Activity:
    """Counts since an engine began, work that had to be repeated included; they can be added.

    Parameters
    ----------
    windows
        Windows that were looked at, those that the tile filter skipped included.
    detections
        Kept by their windows, before seams are merged.
    crops
        Crops that were classified, for all crop models.
    decoded_bytes, stored_bytes
        Of pixels that were decoded, and what their blocks have in the files (see `PixelSource`).
    detect_seconds
        That detectors spent in detecting, and in the tile filter before it.
    detector_seconds
        That detectors stood there for it, busy or not.
    queues
        For each pool of actors, how many calls wait for an answer just now; none without actors.
    actors
        For each pool, how many there are just now.
    halvings
        For each model that ran out of memory, how often, and what it went on with.
    """

    windows: int = 0
    detections: int = 0
    crops: int = 0
    decoded_bytes: int = 0
    stored_bytes: int = 0
    detect_seconds: float = 0.0
    detector_seconds: float = 0.0
    queues: Mapping[str, int] = field(default_factory=dict)
    actors: Mapping[str, int] = field(default_factory=dict)
    halvings: Mapping[str, Halvings] = field(default_factory=dict)

    def __add__(self, other: Activity) -> Activity:
        return Activity(
            self.windows + other.windows,
            self.detections + other.detections,
            self.crops + other.crops,
            self.decoded_bytes + other.decoded_bytes,
            self.stored_bytes + other.stored_bytes,
            self.detect_seconds + other.detect_seconds,
            self.detector_seconds + other.detector_seconds,
            _sums(self.queues, other.queues),
            _sums(self.actors, other.actors),
            add_halvings(self.halvings, other.halvings),
        )

    @property
    def batch_halvings(self) -> int:
        """Halvings of all models."""
        return sum(each.times for each in self.halvings.values())

    @property
    def busy(self) -> float:
        """Share of their time that detectors were busy."""
        return min(self.detect_seconds / self.detector_seconds, 1.0) if self.detector_seconds else 0


def _sums(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {pool: one.get(pool, 0) + other.get(pool, 0) for pool in {**one, **other}}


OnActivity = Callable[[Activity], None]
"""Called now and then with all that was done so far."""
