"""What is counted for a scene that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .windows import WindowGrid

if TYPE_CHECKING:
    from .job import Job
    from .scene_reader import SceneHeader, SceneTask


def failed_counts(task: SceneTask, job: Job, header: SceneHeader | None) -> dict[str, int]:
    """Every planned window of a failed scene counts as failed, since none of its rows is kept.

    Without an opened raster the source's own word on its size is taken; without that either, the
    scene has no windows that anyone knows of.
    """
    if header is not None:
        skipped = {
            "windows_skipped_aoi": header.outside_aoi,
            "windows_skipped_owned": header.owned_elsewhere,
        }
        total = header.grid.count
        return {"windows": total, **skipped, "windows_failed": total - sum(skipped.values())}
    if task.scene.shape is not None and job.windows.resolution is None:
        height, width = task.scene.shape
        total = WindowGrid.cover(width, height, job.windows.size, job.windows.overlap).count
        return {"windows": total, "windows_failed": total}
    return {"windows": 0, "windows_failed": 0}
