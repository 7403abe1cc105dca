"""Choose the detections that their window and their scene own, and count the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..models import TileVerdict
from ._geo import to_map
from .detect import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .region import Region
    from .scene_reader import SceneHeader


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
    failed
        Number of windows that were taken out since the pixels of their crops are corrupt.
    """

    index: NDArray[np.int64]
    verdicts: NDArray[np.int8] | None
    raw: NDArray[np.int64]
    outside_core: NDArray[np.int64]
    owned_elsewhere: NDArray[np.int64]
    outside_aoi: NDArray[np.int64]
    failed: int = 0

    def without(self, failed: NDArray[np.int64]) -> WindowTally:
        """All but some windows, which then count as failed."""
        keep = ~np.isin(self.index, failed)
        parts = (self.raw, self.outside_core, self.owned_elsewhere, self.outside_aoi)
        return WindowTally(
            self.index[keep],
            None if self.verdicts is None else self.verdicts[keep],
            *(part[keep] for part in parts),
            failed=int((~keep).sum()),
        )

    def counts(self) -> dict[str, int]:
        """The sums, by the names that they have in a record."""

        def judged(verdict: TileVerdict) -> int:
            return 0 if self.verdicts is None else int((self.verdicts == verdict).sum())

        return {
            "windows_skipped_filter": judged(TileVerdict.EMPTY),
            "windows_failed": self.failed,
            "windows_uncertain": judged(TileVerdict.UNCERTAIN),
            "windows_empty_and_something": judged(TileVerdict.EMPTY_AND_OBJECTS),
            "detections_raw": int(self.raw.sum()),
            "detections_outside_aoi": int(self.outside_aoi.sum()),
            "duplicates_core": int(self.outside_core.sum()),
            "duplicates_owned": int(self.owned_elsewhere.sum()),
        }


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
