"""Gather a scene's detections from its windows, and merge them when the last one is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..models import TileVerdict
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
class WindowTally:
    """Where the detections of each window of a batch went.

    Parameters
    ----------
    index
        int64 (W,) window numbers.
    verdicts
        int8 (W,) of the tile filter (`TileVerdict`); None without one.
    raw
        int64 (W,), detections that came in.
    outside_core, owned_elsewhere, outside_aoi
        int64 (W,), of those left out because another window has them, another scene has them, or
        nobody asked for them.
    """

    index: NDArray[np.int64]
    verdicts: NDArray[np.int8] | None
    raw: NDArray[np.int64]
    outside_core: NDArray[np.int64]
    owned_elsewhere: NDArray[np.int64]
    outside_aoi: NDArray[np.int64]

    def judged(self, verdict: TileVerdict) -> int:
        """Number of windows of which the tile filter said so."""
        return 0 if self.verdicts is None else int((self.verdicts == verdict).sum())


@dataclass(slots=True)
class Selected:
    """Detections of a batch that may end as rows, and what was left out.

    Parameters
    ----------
    found
        Provisionally kept: these get crops.
    tally
        What else there was, window by window.
    """

    found: Found
    tally: WindowTally


def select(
    found: Found,
    windows: NDArray[np.int64],
    header: SceneHeader,
    region: Region,
    mode: Literal["core", "nms"],
    verdicts: NDArray[np.int8] | None = None,
) -> Selected:
    """Keep what its window and its scene own.

    Parameters
    ----------
    found
        Detections of some windows.
    windows
        int64 (W,), the numbers of all windows of the batch.
    mode
        ``nms`` keeps duplicates between windows for the merge to judge, as DeepForest does, and also
        boxes without area (a box that was clipped at its window's edge to nothing); ``core`` drops
        those, uncounted, since there is nothing in them.
    verdicts
        int8 (W,), what a tile filter said of the windows.
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
    order = np.argsort(windows)
    slots = order[np.searchsorted(windows, found.window, sorter=order)]

    def by_window(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(slots[which], minlength=len(windows))

    tally = WindowTally(
        windows,
        verdicts,
        raw=by_window(np.ones(raw, bool)),
        outside_core=by_window(~core),
        owned_elsewhere=by_window(core & inside & ~own),
        outside_aoi=by_window(core & ~inside),
    )
    return Selected(found[core & inside & own], tally)


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
        counts = self._count([selected.tally for selected, _ in parts], stream)
        counts["duplicates_seam"] = len(found) - len(merged.found)
        counts["duplicates_removed"] = sum(
            counts[f"duplicates_{kind}"] for kind in ("core", "seam", "owned")
        )
        counts["detections"] = len(merged.found)
        return SceneDetections(boxes, merged.found.labels, merged.found.scores, classes, counts)

    def _count(self, tallies: list[WindowTally], stream: StreamCounts) -> dict[str, int]:
        header = self._header

        def total(part: str) -> int:
            return sum(int(getattr(tally, part).sum()) for tally in tallies)

        def judged(verdict: TileVerdict) -> int:
            return sum(tally.judged(verdict) for tally in tallies)

        skipped = judged(TileVerdict.EMPTY)
        return {
            "windows": header.grid.count,
            "windows_processed": stream.read - skipped,
            "windows_skipped_nodata": stream.nodata,
            "windows_skipped_aoi": header.outside_aoi,
            "windows_skipped_owned": header.owned_elsewhere,
            "windows_skipped_filter": skipped,
            "windows_failed": stream.damaged,
            "windows_uncertain": judged(TileVerdict.UNCERTAIN),
            "windows_empty_and_something": judged(TileVerdict.EMPTY_AND_OBJECTS),
            "detections_raw": total("raw"),
            "detections_outside_aoi": total("outside_aoi"),
            "duplicates_core": total("outside_core"),
            "duplicates_owned": total("owned_elsewhere"),
        }
