"""CPU time by process, and throughput once a run is in full swing; for `scaling.py` and `pipeline.py`."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil

from geosweep.pipeline.activity import Activity

PARTS = {
    "ray::Coordinato": "coordinators",
    "ray::Reader": "readers",
    "ray::DetectorAc": "detectors",
    "ray::Cropper": "croppers",
    "ray::Classifier": "classifiers",
    "raylet": "raylets",
    "gcs_server": "gcs",
}


def cpu_seconds() -> Counter[str]:
    """CPU time of this process and of all it started, by what they are."""
    me = psutil.Process()
    own = me.cpu_times()
    spent: Counter[str] = Counter({"driver": own.user + own.system})
    for process in me.children(recursive=True):
        try:
            name = Path("/proc", str(process.pid), "comm").read_text().strip()
            times = process.cpu_times()
        except (OSError, psutil.Error):
            continue
        part = next(
            (part for start, part in PARTS.items() if name.startswith(start)), "rest of Ray"
        )
        spent[part] += times.user + times.system
    return spent


class Steady:
    """Windows over time, by what the coordinators tell; beginning and end of a run are left out."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, Activity]] = []

    def __call__(self, activity: Activity) -> None:
        if activity.windows > (self.seen[-1][1].windows if self.seen else 0):
            self.seen.append((time.perf_counter(), activity))

    def between(self, first: float, last: float) -> tuple[float, float]:
        """Windows per second and the detectors' busy share between two shares of all windows."""
        base, total = self.seen[0][1].windows, self.seen[-1][1].windows
        marks = [base + share * (total - base) for share in (first, last)]
        (t0, a0), (t1, a1) = (
            next(entry for entry in self.seen if entry[1].windows >= mark) for mark in marks
        )
        stood = a1.detector_seconds - a0.detector_seconds
        rate = (a1.windows - a0.windows) / (t1 - t0)
        return rate, (a1.detect_seconds - a0.detect_seconds) / stood
