"""Where a crop is cut for a box: one rule for prediction and training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..catalog.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def crop_bounds(box: ArrayLike, expand: float, width: int, height: int) -> NDArray[np.int64]:
    """Compute the pixel rectangles to cut for boxes.

    The rule of DeepForest's ``BoundingBoxDataset``: grow by `expand` on each side, clamp to the
    image, truncate the offset and the size to whole pixels, at least one. Here the rectangle is then
    also clamped to the image where nothing was grown, so that it is never empty.

    Parameters
    ----------
    box
        (4,) or (N, 4): xmin, ymin, xmax, ymax in pixels; may reach over the image's edge.
    expand
        Pixels of context on each side, at least 0.
    width, height
        Size of the image, at least 1.

    Returns
    -------
    NDArray
        int64, shaped as `box`: x0, y0, x1, y1 with 0 ≤ x0 < x1 ≤ width and 0 ≤ y0 < y1 ≤ height.

    Raises
    ------
    ModelError
        If `expand` is negative.
    """
    if expand < 0:
        raise ModelError(f"expand is {expand}: give 0 or more pixels of context.")
    boxes = np.asarray(box, np.float64)
    shape = boxes.shape
    boxes = boxes.reshape(-1, 4)
    size = np.array([width, height])
    low, high = boxes[:, :2], boxes[:, 2:]
    if expand > 0:
        low = np.maximum(0, low - expand)
        high = np.minimum(size, high + expand)
    start = np.trunc(low).astype(np.int64)
    stop = start + np.maximum(1, high - low).astype(np.int64)
    start = np.clip(start, 0, size - 1)
    stop = np.clip(stop, start + 1, size)
    return np.concatenate([start, stop], axis=1).reshape(shape)


def detection_bounds(boxes: ArrayLike, expand: float, width: int, height: int) -> NDArray[np.int64]:
    """Compute where the crops of detections and of training boxes are cut.

    `crop_bounds` of boxes whose corners are cut to whole pixels first, as DeepForest's are by then.
    The pipeline, `predict` and `write_crops` all cut here.

    Parameters and errors are those of `crop_bounds`.
    """
    return crop_bounds(np.trunc(np.asarray(boxes, np.float64)), expand, width, height)
