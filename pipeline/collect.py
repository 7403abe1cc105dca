"""Gather a scene's detections from its windows, and merge them when the last one is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ._geo import to_map
from .detect import Found
from .merge import merge_core, merge_nms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .job import MergeSpec
    from .region import Region
    from .scene_reader import SceneHeader
    from .stream import StreamCounts


@dataclass(slots=True)
class Selected:
    """Detections of a batch that may end as rows, and what was left out.

    Parameters
    ----------
    found
        Provisionally kept: these get crops.
    raw
        Number of detections that came in.
    outside_core, owned_elsewhere, outside_aoi
        Left out because another window has them, another scene has them, or nobody asked for them.
    """

    found: Found
    raw: int
    outside_core: int
    owned_elsewhere: int
    outside_aoi: int


def select(
    found: Found, header: SceneHeader, region: Region, mode: Literal["core", "nms"]
) -> Selected:
    """Keep what its window and its scene own.

    Parameters
    ----------
    found
        Detections of some windows.
    mode
        ``nms`` keeps duplicates between windows for the merge to judge, as DeepForest does, and also
        boxes without area (a box that was clipped at its window's edge to nothing); ``core`` drops
        those, uncounted, since there is nothing in them.
    """
    if mode == "core":
        boxes = found.boxes
        found = found[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    raw = len(found)
    centres = (found.boxes[:, :2].astype(np.float64) + found.boxes[:, 2:]) / 2
    core = np.ones(raw, bool)
    if mode == "core":
        core = header.grid.in_core(found.window, centres)
    inside = own = np.ones(raw, bool)
    if raw and not region.unlimited and header.transform is not None and header.crs is not None:
        x, y = to_map(header.transform, *(centres * np.array(header.scale)).T)
        inside, own = region.contains(x, y, header.crs)
    return Selected(
        found[core & inside & own],
        raw,
        outside_core=int((~core).sum()),
        owned_elsewhere=int((core & inside & ~own).sum()),
        outside_aoi=int((core & ~inside).sum()),
    )


def stack_probabilities(parts: Iterable[NDArray[np.float32]], classes: int) -> NDArray[np.float32]:
    """Put class probabilities together: float32 (N, classes), also where there are no parts."""
    return np.concatenate([np.zeros((0, classes), np.float32), *parts])


@dataclass(slots=True)
class SceneDetections:
    """A scene's final detections.

    Parameters
    ----------
    boxes
        float32 (N, 4) in pixels of the whole raster.
    labels, scores
        int64 (N,), float32 (N,).
    classes
        For each crop model, float32 (N, number of its classes) probabilities.
    counts
        Where every window and every raw detection went.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    classes: dict[str, NDArray[np.float32]]
    counts: dict[str, int]


class SceneCollector:
    """Takes the selected detections of a scene's batches in any order."""

    def __init__(self, header: SceneHeader, merge: MergeSpec) -> None:
        self._header = header
        self._merge = merge
        self._parts: dict[int, tuple[Selected, dict[str, NDArray[np.float32]]]] = {}

    def add(self, number: int, selected: Selected, classes: dict[str, NDArray[np.float32]]) -> None:
        """Add batch `number` with the class probabilities of its crops."""
        self._parts[number] = (selected, classes)

    def finish(self, stream: StreamCounts, crop_models: dict[str, int]) -> SceneDetections:
        """Merge.

        Parameters
        ----------
        stream
            What the reader counted.
        crop_models
            Number of classes of each crop model, in the job's order.
        """
        parts = [self._parts[number] for number in sorted(self._parts)]
        found = Found.concatenate([selected.found for selected, _ in parts])
        grid = self._header.grid
        mode = self._merge.windows
        merged = (
            merge_core(found, grid, self._merge.iou)
            if mode == "core"
            else merge_nms(found, grid, self._merge.iou)
        )
        classes = {
            name: stack_probabilities((found_as[name] for _, found_as in parts), width)[
                merged.source
            ]
            for name, width in crop_models.items()
        }
        scale = np.array([*self._header.scale, *self._header.scale], np.float64)
        boxes = (merged.found.boxes * scale).astype(np.float32)
        counts = self._count([selected for selected, _ in parts], stream)
        counts["duplicates_seam"] = len(found) - len(merged.found)
        counts["duplicates_removed"] = sum(
            counts[f"duplicates_{kind}"] for kind in ("core", "seam", "owned")
        )
        counts["detections"] = len(merged.found)
        return SceneDetections(boxes, merged.found.labels, merged.found.scores, classes, counts)

    def _count(self, parts: list[Selected], stream: StreamCounts) -> dict[str, int]:
        header = self._header
        return {
            "windows": header.grid.count,
            "windows_processed": stream.read,
            "windows_skipped_nodata": stream.nodata,
            "windows_skipped_aoi": header.outside_aoi,
            "windows_skipped_owned": header.owned_elsewhere,
            "windows_failed": stream.damaged,
            "detections_raw": sum(part.raw for part in parts),
            "detections_outside_aoi": sum(part.outside_aoi for part in parts),
            "duplicates_core": sum(part.outside_core for part in parts),
            "duplicates_owned": sum(part.owned_elsewhere for part in parts),
        }
