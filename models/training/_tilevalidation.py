"""Scores of validation windows, and the objects that each answers for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...catalog.errors import TrainingError
from ..tilethreshold import (
    NEVER,
    TileThreshold,
    TileVerdict,
    choose_label_threshold,
    choose_threshold,
    judge_windows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from ..data.dataset import WindowDataset
    from ..protocol import TileScorer
    from .tileconfig import TileThresholds


class TileValidation(NamedTuple):
    """What a filter says of windows, and what they hold.

    Parameters
    ----------
    scores
        float32 (N, labels).
    objects
        int64 (N, foreground labels): objects that the window answers for; each counts once.
    """

    scores: NDArray[np.float32]
    objects: NDArray[np.int64]


def validate_tilefilter(scorer: TileScorer, dataset: WindowDataset) -> TileValidation:
    """Score every window of a grid, and count the objects in each.

    An object belongs to the window that has its centre; of several to the one whose own centre is
    nearest, which is where the pipeline keeps it.
    """
    scores, windows = [], []
    for image, target in _samples(dataset):
        scores.append(scorer.scores(image[None].numpy())[0])
        windows.append((target["image_path"], *target["window"]))
    return TileValidation(np.stack(scores), objects_by_window(dataset, windows))


def objects_by_window(
    dataset: WindowDataset, windows: list[tuple[str, int, int, int, int]]
) -> NDArray[np.int64]:
    """Count each window's objects, int64 (N, foreground labels).

    Parameters
    ----------
    dataset
        Has the labelled images.
    windows
        image_path, xoff, yoff, width and height of each.
    """
    counts = np.zeros((len(windows), len(dataset.labels)), np.int64)
    paths = np.array([w[0] for w in windows])
    places = np.array([w[1:] for w in windows], np.float64).reshape(-1, 4)
    for image in dataset.images:
        mine = np.flatnonzero(paths == image.path)
        corners, sizes = places[mine, :2], places[mine, 2:]
        centres = (image.boxes[:, :2] + image.boxes[:, 2:]) / 2
        for centre, label in zip(centres, image.classes, strict=True):
            inside = ((centre >= corners) & (centre < corners + sizes)).all(1)
            if inside.any():
                away = np.abs(corners + sizes / 2 - centre).max(1)
                counts[mine[np.argmin(np.where(inside, away, np.inf))], label] += 1
    return counts


def check_objects(dataset: WindowDataset) -> None:
    """Refuse to train where nothing could be chosen afterwards.

    Raises
    ------
    TrainingError
        If no validation window shows an object.
    """
    _require(bool(dataset.positives.any()))


def _require(objects: bool) -> None:
    if not objects:
        raise TrainingError(
            "The validation windows hold no object, so nothing tells what a threshold would lose; give "
            "other annotations as data.val, or a larger share."
        )


def choose_on(
    validation: TileValidation, thresholds: TileThresholds
) -> tuple[TileThreshold, tuple[float, ...]]:
    """Choose the thresholds of `empty` and of each label as the configuration asks.

    Raises
    ------
    TrainingError
        If there is no object to validate on.
    """
    scores, objects = validation
    _require(bool(objects.any()))
    labels = range(objects.shape[1])
    if thresholds.label is None:
        limits = tuple(
            choose_label_threshold(scores[:, k], objects[:, k], thresholds.max_loss) for k in labels
        )
    else:
        limits = tuple(thresholds.label for _ in labels)
    chosen = choose_threshold(
        scores[:, -1],
        objects.sum(1),
        thresholds.max_loss,
        # With a threshold that no score reaches, what is not uncertain has a label.
        kept=judge_windows(scores, NEVER, limits) == TileVerdict.OBJECTS,
        confidence=thresholds.confidence,
    )
    return chosen, limits


def seconds_per_window(
    work: Callable[[NDArray[np.float32]], object], dataset: WindowDataset, windows: int = 8
) -> float:
    """Median time that `work` takes for one window, on up to so many validation windows."""
    times = []
    for image, _ in _samples(dataset, windows + 1):
        start = time.perf_counter()
        work(image[None].numpy())
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:] or times))  # the first one warms up


def _samples(dataset: WindowDataset, most: int | None = None) -> Iterator[tuple[Tensor, dict]]:
    count = len(dataset) if most is None else min(most, len(dataset))
    return (dataset[i] for i in range(count))
