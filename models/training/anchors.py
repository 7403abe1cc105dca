"""Anchors that fit a dataset's boxes: k-means with 1 − IoU as the distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import AnnotationError, TrainingError
from ...catalog.strict import checked
from .._netconfig import SingleShotConfig

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_ROUNDS = 300


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors fit boxes, wherever these lie.

    Parameters
    ----------
    shapes
        Widths and heights of the anchors in pixels, float64 (k, 2), smallest first.
    mean_iou
        Mean over the boxes of the IoU with the best anchor, centre on centre.
    recall
        Share of the boxes whose best anchor has at least the matcher's IoU.
    """

    shapes: NDArray[np.float64]
    mean_iou: float
    recall: float


@dataclass(frozen=True)
class AnchorSuggestion:
    """Anchors for a dataset beside those that the detector has now.

    Parameters
    ----------
    boxes
        Number of boxes looked at.
    threshold
        The matcher's IoU, from which an anchor is positive.
    current
        How well the configuration's anchors fit.
    clusters
        The centres that k-means found.
    suggested
        How well `anchor_sizes` with `aspect_ratios` fit: every size with every ratio.
    anchor_sizes, aspect_ratios
        Settings for ``model.network``: sizes for each level, and ratios (height / width).
    current_sizes, current_ratios
        The settings as they are now.
    """

    boxes: int
    threshold: float
    current: AnchorFit
    clusters: AnchorFit
    suggested: AnchorFit
    anchor_sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[float, ...]
    current_sizes: tuple[tuple[float, ...], ...]
    current_ratios: tuple[float, ...]

    def to_yaml(self) -> str:
        """Return the suggestion as it stands in a training configuration."""
        sizes = ", ".join(f"[{', '.join(f'{s:g}' for s in level)}]" for level in self.anchor_sizes)
        ratios = ", ".join(f"{ratio:g}" for ratio in self.aspect_ratios)
        return f"model:\n  network:\n    anchor_sizes: [{sizes}]\n    aspect_ratios: [{ratios}]"


def suggest_anchors(
    annotations: pd.DataFrame | str | Path,
    k: int | None = None,
    *,
    network: SingleShotConfig | Mapping[str, Any] | None = None,
    scale: float = 1.0,
    seed: int = 0,
    **reading: Any,
) -> AnchorSuggestion:
    """Suggest anchors of the single-shot detector for labelled boxes.

    Redmon & Farhadi, *YOLO9000*, 2017 (https://arxiv.org/abs/1612.08242), section 2: k-means over
    widths and heights with the distance 1 − IoU, boxes laid centre on centre. The clusters' areas
    become the sizes, dealt out to the levels in rising order; if the clusters' ratios spread, up to
    three ratios are suggested as well.

    Parameters
    ----------
    annotations
        A frame with xmin, ymin, xmax, ymax, or what `read_annotations` takes.
    k
        Number of sizes over all levels, a multiple of the number of levels; None for as many as
        `network` has.
    network
        What to compare with: the single-shot detector, or settings of it over the default.
    scale
        Factor from the image's pixels to those that the detector sees, for training at another
        resolution.
    seed
        Of the first centres.
    **reading
        Arguments of `read_annotations`.

    Raises
    ------
    AnnotationError
        If there are no boxes.
    TrainingError
        If `k` is no multiple of the levels.
    """
    if not isinstance(network, SingleShotConfig):
        network = checked(SingleShotConfig, dict(network or {}), "model.network", TrainingError)
    levels = len(network.strides)
    k = levels * len(network.anchor_sizes[0]) if k is None else k
    if k < 1 or k % levels:
        raise TrainingError(
            f"k is {k}, but must be a multiple of the {levels} levels that carry anchors."
        )
    shapes = _box_shapes(annotations, reading) * scale
    centres = kmeans_iou(shapes, k, seed=seed)
    ratios = _ratios(shapes)
    sizes = np.sort(np.sqrt(centres.prod(1)))
    # The clusters tell sizes and ratios in one; where ratios come on top, sizes are clustered alone.
    if len(ratios) > 1:
        squares = np.sqrt(shapes.prod(1))
        sizes = np.sort(kmeans_iou(np.stack([squares, squares], 1), k, seed=seed)[:, 0])
    each = tuple(tuple(round(float(s), 1) for s in part) for part in np.split(sizes, levels))
    threshold = network.fg_iou
    return AnchorSuggestion(
        boxes=len(shapes),
        threshold=threshold,
        current=_fit(shapes, anchor_shapes(network.anchor_sizes, network.aspect_ratios), threshold),
        clusters=_fit(shapes, centres, threshold),
        suggested=_fit(shapes, anchor_shapes(each, ratios), threshold),
        anchor_sizes=each,
        aspect_ratios=ratios,
        current_sizes=network.anchor_sizes,
        current_ratios=network.aspect_ratios,
    )


def kmeans_iou(
    shapes: NDArray[np.float64], k: int, *, seed: int = 0, tries: int = 3
) -> NDArray[np.float64]:
    """Cluster widths and heights by 1 − IoU; centres are the clusters' medians.

    Parameters
    ----------
    shapes
        (N, 2), N at least 1.
    k
        Number of clusters.
    seed, tries
        Of the first centres, drawn as in k-means++; the best of so many tries is kept.

    Returns
    -------
    NDArray
        Float64 (k, 2), by rising area; centres repeat where there are fewer different shapes.
    """
    rng = np.random.default_rng(seed)
    best, best_score = np.zeros((k, 2)), -1.0
    for _ in range(tries):
        centres = _first_centres(shapes, k, rng)
        nearest = np.full(len(shapes), -1)
        for _ in range(_ROUNDS):
            now = shape_iou(shapes, centres).argmax(1)
            if (now == nearest).all():
                break
            nearest = now
            for i in range(k):
                if (nearest == i).any():
                    centres[i] = np.median(shapes[nearest == i], axis=0)
        score = float(shape_iou(shapes, centres).max(1).mean())
        if score > best_score:
            best, best_score = centres, score
    return best[np.argsort(best.prod(1), kind="stable")]


def shape_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of shapes (N, 2) and (M, 2), laid centre on centre, as (N, M)."""
    shared = np.minimum(a[:, None], b[None]).prod(2)
    return shared / (a.prod(1)[:, None] + b.prod(1)[None] - shared)


def anchor_shapes(
    sizes: tuple[tuple[float, ...], ...], ratios: tuple[float, ...]
) -> NDArray[np.float64]:
    """Widths and heights of every size with every ratio, as torchvision makes them."""
    flat = np.array([size for level in sizes for size in level], np.float64)
    root = np.sqrt(np.array(ratios, np.float64))
    widths, heights = flat[:, None] / root, flat[:, None] * root
    return np.stack([widths.ravel(), heights.ravel()], 1)


def _box_shapes(annotations: Any, reading: dict[str, Any]) -> NDArray[np.float64]:
    if isinstance(annotations, str | Path):
        from ..data.annotations import read_annotations

        annotations = read_annotations(annotations, **reading)
    low = annotations[["xmin", "ymin"]].to_numpy(np.float64)
    shapes = annotations[["xmax", "ymax"]].to_numpy(np.float64) - low
    shapes = shapes[(shapes > 0).all(1)]
    if not len(shapes):
        raise AnnotationError("The annotations hold no box with an area, so nothing fits anchors.")
    return shapes


def _first_centres(
    shapes: NDArray[np.float64], k: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    centres = shapes[[rng.integers(len(shapes))]]
    while len(centres) < k:
        far = (1 - shape_iou(shapes, centres).max(1)) ** 2
        share = far / far.sum() if far.sum() > 0 else None
        centres = np.concatenate([centres, shapes[[rng.choice(len(shapes), p=share)]]])
    return centres.copy()


def _ratios(shapes: NDArray[np.float64]) -> tuple[float, ...]:
    """One ratio where the boxes are alike, else three."""
    ratio = shapes[:, 1] / shapes[:, 0]
    low, middle, high = np.quantile(ratio, [0.15, 0.5, 0.85])
    if high / low < 2:
        return (round(float(middle), 2),)
    return tuple(round(float(r), 2) for r in (low, middle, high))


def _fit(shapes: NDArray[np.float64], anchors: NDArray[np.float64], threshold: float) -> AnchorFit:
    best = shape_iou(shapes, anchors).max(1)
    order = np.argsort(anchors.prod(1), kind="stable")
    return AnchorFit(anchors[order], float(best.mean()), float((best >= threshold).mean()))
