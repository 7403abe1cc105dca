"""The numbers of a run: as values, as a line of its log, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_LINE = re.compile(
    r"progress: (?P<scenes_done>\d+) of (?P<scenes>\d+) scenes \((?P<failed>\d+) failed\), "
    r"(?:(?P<left>[\d:]+) left, )?"
    r"(?P<windows>\d+) windows \((?P<windows_per_second>[\d.]+)/s\), (?P<detections>\d+) detections"
    r"(?:, (?P<crops>\d+) crops \((?P<crops_per_second>[\d.]+)/s\), "
    r"detectors (?P<percent>\d+)% busy, (?P<read_gb>[\d.]+) GB read, (?P<decoded_gb>[\d.]+) GB decoded"
    r"(?:, queues: (?P<queues>[\w ,]+))?)?"
)


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """How far a run is; all but scenes and failures are its own, scenes those of earlier runs, too.

    As text it is the line of the log, from which `parse` makes it again.

    Parameters
    ----------
    scenes_done, scenes, failed
        Scenes that are done, out of how many, and how many of them failed now.
    windows, detections, crops
        That were looked at; kept before seams are merged; classified. Work that was repeated counts
        each time.
    windows_per_second, crops_per_second
        Since the engine stood, its start left out.
    detectors_busy
        Share of the detectors' time in which they detected, 0 to 1, in whole per cent.
    read_gb
        Of the blocks that were decoded, as they lie in the files (10⁹ bytes); headers, requests that
        were repeated, and files other than TIFFs are not counted.
    decoded_gb
        Of pixels (10⁹ bytes).
    queues
        For each pool of actors, how many calls wait for an answer; empty in the local engine.
    seconds_left
        At the pace of this run's scenes so far; None before the first.
    """

    scenes_done: int
    scenes: int
    failed: int
    windows: int
    windows_per_second: float
    detections: int
    crops: int = 0
    crops_per_second: float = 0.0
    detectors_busy: float = 0.0
    read_gb: float = 0.0
    decoded_gb: float = 0.0
    queues: Mapping[str, int] = field(default_factory=dict)
    seconds_left: int | None = None

    def __str__(self) -> str:
        scenes = f"{self.scenes_done} of {self.scenes} scenes ({self.failed} failed)"
        left = "" if self.seconds_left is None else f"{self.time_left} left, "
        return f"progress: {scenes}, {left}{self.work}, {self.load}"

    @property
    def time_left(self) -> str:
        """Hours, minutes and seconds, such as 1:02:03."""
        minutes, seconds = divmod(self.seconds_left or 0, 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"

    @property
    def work(self) -> str:
        """The part of the line on what was done."""
        return (
            f"{self.windows} windows ({self.windows_per_second:.1f}/s), "
            f"{self.detections} detections, {self.crops} crops ({self.crops_per_second:.1f}/s)"
        )

    @property
    def load(self) -> str:
        """The part of the line on how busy everybody is."""
        queues = ", ".join(f"{pool} {depth}" for pool, depth in self.queues.items())
        return (
            f"detectors {self.detectors_busy:.0%} busy, "
            f"{self.read_gb:.3f} GB read, {self.decoded_gb:.3f} GB decoded"
            + (f", queues: {queues}" if queues else "")
        )

    @classmethod
    def parse(cls, log: str) -> RunNumbers | None:
        """What the last such line of a log says; None if there is none."""
        found = None
        for match in _LINE.finditer(log):
            found = {name: text for name, text in match.groupdict().items() if text is not None}
        if found is None:
            return None
        pairs = (pair.split() for pair in found.pop("queues", "").split(", ") if pair)
        queues = {pool: int(depth) for pool, depth in pairs}
        left = _seconds(found.pop("left")) if "left" in found else None
        busy = int(found.pop("percent", "0")) / 100
        values: dict[str, Any] = {
            name: float(text) if "." in text else int(text) for name, text in found.items()
        }
        return cls(detectors_busy=busy, queues=queues, seconds_left=left, **values)

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        return asdict(self)


def _seconds(clock: str) -> int:
    hours, minutes, seconds = clock.split(":")
    return (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
