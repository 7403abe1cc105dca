"""When a tile filter may drop a window: verdicts, and a threshold that keeps the objects.

Pure arrays: neither torch nor pixels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

NEVER = 1.0
"""The empty threshold that no score reaches (`TileFilter.scores` stay below 1)."""


class TileVerdict(IntEnum):
    """What becomes of a window; only `EMPTY` is dropped."""

    EMPTY = 0
    """Sure to be empty, and no label is above its threshold."""
    UNCERTAIN = 1
    """Under every threshold."""
    OBJECTS = 2
    """A label is above its threshold, `empty` is not."""
    EMPTY_AND_OBJECTS = 3
    """Both are, so the filter contradicts itself."""


def judge_windows(
    scores: ArrayLike, empty_threshold: float, label_thresholds: float | Sequence[float] = 0.5
) -> NDArray[np.int8]:
    """Decide what becomes of each window.

    Parameters
    ----------
    scores
        (N, labels) in 0–1, `empty` last.
    empty_threshold
        A window may be dropped from this score of `empty` on; 1 drops none.
    label_thresholds
        A label counts as seen from this score on: one for all, or one for each foreground label.

    Returns
    -------
    NDArray
        int8 (N,) of `TileVerdict`.

    Raises
    ------
    ModelError
        If shapes or thresholds don't fit.
    """
    table = np.asarray(scores)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ModelError(
            f"tile filter scores have shape {table.shape}: expected (windows, labels), with at "
            "least one foreground label before `empty`."
        )
    if not np.issubdtype(table.dtype, np.floating):
        table = table.astype(np.float32)
    limits = np.asarray(label_thresholds, table.dtype)
    if limits.ndim > 1 or limits.size not in (1, table.shape[1] - 1):
        raise ModelError(
            f"{limits.size} label thresholds for {table.shape[1] - 1} foreground labels: give one, "
            "or one for each."
        )
    for name, value in (("empty_threshold", empty_threshold), ("label_thresholds", limits)):
        if not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
            raise ModelError(f"{name} is {value}: give a number from 0 to 1.")
    empty = table[:, -1] >= np.asarray(empty_threshold, table.dtype)
    seen = (table[:, :-1] >= limits).any(1)
    verdicts = np.full(len(table), TileVerdict.UNCERTAIN, np.int8)
    verdicts[seen] = TileVerdict.OBJECTS
    verdicts[empty] = TileVerdict.EMPTY
    verdicts[empty & seen] = TileVerdict.EMPTY_AND_OBJECTS
    return verdicts


@dataclass(frozen=True)
class TileThreshold:
    """A threshold, and what it did on the data it was chosen on.

    Parameters
    ----------
    threshold
        Drop a window whose `empty` score is at least this (`NEVER` if none may be dropped).
    max_loss
        The largest share of objects that was allowed to be lost.
    windows, skipped
        Windows, and those dropped.
    objects, lost
        Objects, and those in dropped windows.
    occupied, occupied_skipped
        Windows with an object, and those of them that are dropped.
    confidence
        Of the bounds below.
    loss_bound
        Upper Clopper–Pearson bound of the share of objects lost, as if objects were independent.
    window_loss_bound
        The same for windows with objects; the careful figure, as objects of a window go together.
    """

    threshold: float
    max_loss: float
    windows: int
    skipped: int
    objects: int
    lost: int
    occupied: int
    occupied_skipped: int
    confidence: float
    loss_bound: float
    window_loss_bound: float

    @property
    def skipped_share(self) -> float:
        """Share of the windows that are dropped."""
        return self.skipped / self.windows

    @property
    def lost_share(self) -> float:
        """Share of the objects that are lost."""
        return self.lost / self.objects

    @property
    def statement(self) -> str:
        """What may be said of it, and what not, in one or two sentences."""
        bound = (
            f"with {self.confidence:.0%} confidence at most {self.loss_bound:.2%} of the objects on "
            f"ground like this if objects were independent, {self.window_loss_bound:.2%} of the "
            "windows with objects"
        )
        caveat = (
            "the threshold was chosen on the same windows, so measure again on others"
            if self.threshold < NEVER
            else "no threshold keeps enough objects, so no window is dropped"
        )
        return (
            f"Of {self.windows} windows {self.skipped_share:.1%} are skipped, and {self.lost} of "
            f"{self.objects} objects ({self.lost_share:.2%}) are lost with them: {bound}; {caveat}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict, shares included."""
        shares = {"skipped_share": self.skipped_share, "lost_share": self.lost_share}
        return {**asdict(self), **shares}


def choose_threshold(
    scores: ArrayLike,
    object_counts: ArrayLike,
    max_loss: float = 0.005,
    *,
    kept: ArrayLike | None = None,
    confidence: float = 0.95,
) -> TileThreshold:
    """Choose the `empty` threshold that drops most windows and loses few enough objects.

    Parameters
    ----------
    scores
        (N,) the windows' `empty` scores, from 0 to less than 1.
    object_counts
        (N,) how many objects each window answers for. Count each object once, in the window that
        has its centre.
    max_loss
        Largest share of all objects that may lie in dropped windows.
    kept
        (N,) bool: windows that are kept whatever `empty` says, as a label is above its threshold.
    confidence
        Of the bounds that are reported.

    Returns
    -------
    TileThreshold
        Of the thresholds that drop the same windows the highest: the lowest score that is dropped.

    Raises
    ------
    ModelError
        If the arrays don't fit, or there is no object to lose.
    """
    empty = np.asarray(scores)
    counts = np.asarray(object_counts)
    vetoed = np.zeros(len(empty), bool) if kept is None else np.asarray(kept, bool)
    if empty.ndim != 1 or counts.shape != empty.shape or vetoed.shape != empty.shape:
        raise ModelError(
            f"{empty.shape} scores, {counts.shape} object counts and {vetoed.shape} kept: give one "
            "of each per window."
        )
    if not ((empty >= 0) & (empty < NEVER)).all():
        raise ModelError("A window's `empty` score lies outside 0 ≤ score < 1.")
    if not 0 <= max_loss < 1:
        raise ModelError(f"max_loss is {max_loss}: give a share of the objects, such as 0.005.")
    if (counts < 0).any():
        raise ModelError("A window's object count is negative.")
    if counts.sum() == 0:
        raise ModelError(
            "The validation windows hold no object, so nothing tells what a threshold would lose; "
            "add labelled images with objects."
        )
    objects = int(counts.sum())
    candidates = np.flatnonzero(~vetoed)
    order = candidates[np.argsort(-empty[candidates], kind="stable")]
    ranked = empty[order]
    lost = np.cumsum(counts[order])
    # Only whole groups of equal scores can be dropped; losses only grow, so the last that fits wins.
    last_of_group = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    fits = np.flatnonzero(last_of_group & (lost / objects <= max_loss))
    threshold = float(ranked[fits[-1]]) if len(fits) else NEVER
    dropped = ~vetoed & (empty >= threshold)
    gone, occupied = int(counts[dropped].sum()), counts > 0
    return TileThreshold(
        threshold=threshold,
        max_loss=max_loss,
        windows=len(empty),
        skipped=int(dropped.sum()),
        objects=objects,
        lost=gone,
        occupied=int(occupied.sum()),
        occupied_skipped=int((dropped & occupied).sum()),
        confidence=confidence,
        loss_bound=upper_bound(gone, objects, confidence),
        window_loss_bound=upper_bound(
            int((dropped & occupied).sum()), int(occupied.sum()), confidence
        ),
    )


def choose_label_threshold(
    scores: ArrayLike, object_counts: ArrayLike, max_loss: float = 0.005, highest: float = 0.9
) -> float:
    """Choose the score from which a label counts as seen: the highest that misses few enough objects.

    Parameters
    ----------
    scores
        (N,) the windows' scores of the label.
    object_counts
        (N,) how many objects of the label each window answers for.
    max_loss
        Largest share of them that may lie in windows below the threshold.
    highest
        Never choose more: what scores that much is seen, whatever the validation data say.
    """
    seen, counts = np.asarray(scores), np.asarray(object_counts)
    if seen.ndim != 1 or counts.shape != seen.shape:
        raise ModelError(f"{seen.shape} scores and {counts.shape} object counts: give one of each.")
    levels, group = np.unique(seen, return_inverse=True)
    if counts.sum() == 0:
        return highest
    within = np.bincount(group, weights=counts, minlength=len(levels))
    missed = np.cumsum(within) - within  # in windows that score less than the level
    fits = np.flatnonzero(missed / counts.sum() <= max_loss)
    return min(float(levels[fits[-1]]), highest)


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided upper confidence bound of a share (Clopper & Pearson, Biometrika 26, 1934).

    Parameters
    ----------
    events, trials
        Counts, 0 ≤ events ≤ trials.
    confidence
        For example 0.95: 0 of 600 then gives 0.5 %.
    """
    from scipy.stats import beta

    if events == trials:
        return 1.0
    bound = float(beta.ppf(confidence, events + 1, trials - events))
    return bound if math.isfinite(bound) else 1.0
