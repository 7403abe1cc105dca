"""Gather a scene's detections from its windows, and merge them when the last one is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .choose import Selected
from .crop import EMPTY, PARTLY
from .detect import Found
from .merge import merge_core, merge_nms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .crop import CropNote
    from .job import MergeSpec
    from .scene_reader import SceneHeader
    from .stream import StreamCounts


FROM_BATCHES = (
    "windows_skipped_filter",
    "windows_uncertain",
    "windows_empty_and_something",
    "detections_raw",
    "detections_outside_aoi",
    "duplicates_core",
    "duplicates_owned",
    "crops",
)
"""Counts that are sums over a scene's batches."""


def stack_probabilities(parts: Iterable[NDArray[np.float32]], classes: int) -> NDArray[np.float32]:
    """Put class probabilities together: float32 (N, classes), also where there are no parts."""
    return np.concatenate([np.zeros((0, classes), np.float32), *parts])


Classified = Sequence[tuple["NDArray[np.float32]", "CropNote"]]
"""Class probabilities of some crops each, with what is to be known of the crops, in order."""


@dataclass(slots=True)
class Batch:
    """A batch of windows that went through all models.

    Parameters
    ----------
    found
        Its detections.
    counts
        What became of its windows and of its other detections.
    classes
        For each crop model, float32 (N, classes); NaN for crops without a pixel of data.
    outside
        For each crop model, int8 (N,): whether its crops lie on the raster they are cut from (see
        `Cut`).
    """

    found: Found
    counts: dict[str, int]
    classes: dict[str, NDArray[np.float32]]
    outside: dict[str, NDArray[np.int8]]


def settle(
    selected: Selected, classified: Mapping[str, Classified], crop_models: Mapping[str, int]
) -> Batch:
    """Put the classes of a batch's crops to its detections.

    Parameters
    ----------
    selected
        The batch's detections.
    classified
        Of each crop model that there were crops for, chunk by chunk.
    crop_models
        Number of classes of each crop model.

    Notes
    -----
    A window on whose crops the decoder complained fails as one with corrupt pixels of its own does:
    whole, for all crop models.
    """
    failed = [note.failed for chunks in classified.values() for _, note in chunks]
    lost = np.unique(np.concatenate([np.zeros(0, np.int64), *failed]))
    keep = ~np.isin(selected.found.window, lost)
    tally = selected.tally.without(lost) if len(lost) else selected.tally
    crops = sum(len(rows) for chunks in classified.values() for rows, _ in chunks)
    batch = Batch(selected.found[keep], {**tally.counts(), "crops": crops}, {}, {})
    for name, width in crop_models.items():
        chunks = classified.get(name, ())
        rows = stack_probabilities((rows for rows, _ in chunks), width)[keep]
        outside = np.concatenate([np.zeros(0, np.int8), *(note.outside for _, note in chunks)])
        batch.outside[name] = outside[keep]
        rows[outside[keep] == EMPTY] = np.nan
        batch.classes[name] = rows
    return batch


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
        For each crop model, float32 (N, number of its classes) probabilities; NaN where the crop has
        no pixel of data.
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
        self._parts: dict[int, Batch] = {}

    def add(self, number: int, batch: Batch) -> None:
        """Add batch `number`."""
        self._parts[number] = batch

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
        found = Found.concatenate([part.found for part in parts])
        grid = self._header.grid
        mode = self._merge.windows
        merged = (
            merge_core(found, grid, self._merge.iou)
            if mode == "core"
            else merge_nms(found, grid, self._merge.iou)
        )
        classes = {
            name: stack_probabilities((part.classes[name] for part in parts), width)[merged.source]
            for name, width in crop_models.items()
        }
        scale = np.array([*self._header.scale, *self._header.scale], np.float64)
        boxes = (merged.found.boxes * scale).astype(np.float32)
        counts = self._count(parts, stream)
        counts["duplicates_seam"] = len(found) - len(merged.found)
        counts["duplicates_removed"] = sum(
            counts[f"duplicates_{kind}"] for kind in ("core", "seam", "owned")
        )
        outside = [
            np.concatenate([part.outside[name] for part in parts])[merged.source]
            for name in (crop_models if parts else ())
        ]
        for count, kind in (("crops_partly_outside", PARTLY), ("crops_outside", EMPTY)):
            counts[count] = sum(int((flags == kind).sum()) for flags in outside)
        counts["detections"] = len(merged.found)
        return SceneDetections(boxes, merged.found.labels, merged.found.scores, classes, counts)

    def _count(self, parts: list[Batch], stream: StreamCounts) -> dict[str, int]:
        header = self._header
        of_batches: Counter[str] = Counter()
        for part in parts:
            of_batches.update(part.counts)
        skipped, failed = of_batches["windows_skipped_filter"], of_batches["windows_failed"]
        return {
            "windows": header.grid.count,
            "windows_processed": stream.read - skipped - failed,
            "windows_skipped_nodata": stream.nodata,
            "windows_skipped_aoi": header.outside_aoi,
            "windows_skipped_owned": header.owned_elsewhere,
            "windows_failed": stream.damaged + failed,
            **{name: of_batches[name] for name in FROM_BATCHES},
            "decoded_bytes": stream.decoded_bytes,
            "stored_bytes": stream.stored_bytes,
        }
