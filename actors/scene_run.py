"""What a coordinator holds of a scene while it is swept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray

from ..pipeline.activity import Activity
from ..pipeline.collect import SceneCollector

if TYPE_CHECKING:
    from ..pipeline.scene_reader import SceneHeader, SceneTask
    from ..pipeline.settings import Settings


class SceneRun:
    """State of one try at a scene.

    Parameters
    ----------
    task
        The scene.

    Attributes
    ----------
    header, collector
        None until it is opened.
    task_ref, header_ref
        Both in the object store, from then on.
    detect_seconds
        That detectors spent on it.
    """

    def __init__(self, task: SceneTask) -> None:
        self.task = task
        self.header: SceneHeader | None = None
        self.collector: SceneCollector | None = None
        self.detect_seconds = 0.0
        self._read = (0, 0)

    def open(self, header: SceneHeader, settings: Settings) -> None:
        """Note the opened scene; its limits and header go to the store once, not with each batch."""
        self.header = header
        self.collector = SceneCollector(header, settings.job.merge)
        self.task_ref = ray.put(self.task)
        self.header_ref = ray.put(header)

    def read_up_to(self, decoded: int, stored: int) -> Activity:
        """Bytes that were read since the last call, by what was read of the scene so far."""
        before, self._read = self._read, (decoded, stored)
        return Activity(decoded_bytes=decoded - before[0], stored_bytes=stored - before[1])
