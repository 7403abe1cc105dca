"""Find objects in a batch of windows: the tile filter, if there is one, then the detector.

Both sit in one process and see the same array, so a filter moves no pixels: a window that is sure to
be empty is just not handed to the detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..catalog.errors import ModelError
from ..models import TileVerdict, judge_windows
from ._stopwatch import Stopwatch
from .choose import Selected, select
from .detect import detect_in, views_of
from .halving import Halving, Halvings

if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import NDArray

    from ..models import Detector, TileScorer
    from .region import Region
    from .scene_reader import SceneHeader
    from .stream import WindowBatch


class Finder:
    """A detector behind a tile filter.

    Parameters
    ----------
    detector
        Any `Detector`.
    tile_filter
        Any `TileScorer`; None looks at every window. Its labels count as seen from its own
        `label_thresholds` on, or from 0.5 if it has none.
    empty_threshold
        None takes the tile filter's own.

    Notes
    -----
    Only windows that are sure to be empty are skipped: the filter's `empty` is at its threshold or
    above, and none of its labels is. A window under every threshold is uncertain and is looked at.
    """

    def __init__(
        self,
        detector: Detector,
        tile_filter: TileScorer | None = None,
        empty_threshold: float | None = None,
    ) -> None:
        self.detector = detector
        self.tile_filter = tile_filter
        self._empty_threshold = empty_threshold
        remedy = "choose smaller windows, another GPU, or fewer detectors on each"
        self._detecting = Halving(f"detector {detector.name}", "windows", remedy)
        self._filtering: Halving | None = None
        if tile_filter is not None:
            self._filtering = Halving(f"tile filter {tile_filter.name}", "windows", remedy)

    def take_halvings(self) -> dict[str, Halvings]:
        """Of which models the batches were halved since the last call, for want of memory."""
        filtering = {} if self._filtering is None else self._filtering.take()
        return filtering | self._detecting.take()

    @property
    def device(self) -> str:
        """Where the detector runs."""
        return self.detector.device

    def find(
        self,
        batch: WindowBatch,
        header: SceneHeader,
        region: Region,
        mode: Literal["core", "nms"],
        watch: Stopwatch | None = None,
    ) -> Selected:
        """Detect in a batch, and keep what its windows and its scene own.

        Parameters
        ----------
        batch
            Windows; their first three channels are the detector's.
        header, region
            Of the scene.
        mode
            How windows are merged (see `select`).
        watch
            Collects the seconds of the stages ``filter`` and ``detect``.

        Raises
        ------
        DeviceMemoryError
            If a model's memory runs out with a single window.
        """
        clock = watch or Stopwatch()
        views = views_of(batch, header.grid, header.model_size)
        verdicts = None
        index = batch.index
        if self.tile_filter is not None:
            with clock.stage("filter"):
                verdicts = self._judge(views.images)
                views = views.only(verdicts != TileVerdict.EMPTY)
        with clock.stage("detect"):
            found = detect_in(self.detector, views, self._detecting)
            return select(found, index, header, region, mode, verdicts)

    def look_at(self, images: NDArray[np.uint8]) -> None:
        """Take (B, 3, H, W) windows through the models and forget what they found, to see how long it
        takes.

        Raises
        ------
        DeviceMemoryError
            As `find` does.
        """
        if self.tile_filter is not None:
            self._judge(images)
        self._detecting.run(self.detector.detect, images)

    def _judge(self, images: NDArray[np.uint8]) -> NDArray[np.int8]:
        tile_filter = self.tile_filter
        assert tile_filter is not None and self._filtering is not None
        limit = self._empty_threshold
        if limit is None:
            limit = tile_filter.empty_threshold
        scores = np.concatenate(self._filtering.run(tile_filter.scores, images))
        if len(scores) != len(images):
            raise ModelError(
                f"{tile_filter.name} gave {len(scores)} rows of scores for {len(images)} windows; it "
                "must give one each."
            )
        return judge_windows(scores, limit, getattr(tile_filter, "label_thresholds", 0.5))
