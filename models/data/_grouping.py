"""Annotation frames, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...catalog.errors import AnnotationError
from .frame import BOX
from .headers import image_location

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """An image on disk with its boxes.

    Parameters
    ----------
    path
        As the frame has it.
    file
        Where to open it.
    boxes
        float64 (N, 4): xmin, ymin, xmax, ymax in pixels.
    classes
        int64 (N,): indices into the labels.
    """

    path: str
    file: str
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]


def sorted_labels(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the labels of a frame's boxes, sorted, whatever the order of its rows."""
    _require(frame)
    return tuple(sorted({str(label) for label in frame["label"].dropna()}))


def boxed_images(
    frame: pd.DataFrame, labels: Sequence[str], root_dir: str | None = None
) -> list[BoxedImage]:
    """Group a frame's rows by image, in the order in which images first appear.

    Parameters
    ----------
    frame
        Columns image_path, xmin, ymin, xmax, ymax and label. A row without label whose box is all
        zeros says that its image has no objects.
    labels
        Every label that may occur.
    root_dir
        Folder of relative paths; the frame's own if None.

    Raises
    ------
    AnnotationError
        If a column is missing, a box has no area or no label, or a label is not in `labels`.
    """
    _require(frame)
    if len(frame) == 0:
        raise AnnotationError("There are no annotations, so there is nothing to train on.")
    root = str(root_dir or frame.attrs.get("root_dir", "."))
    corners = frame[list(BOX)].to_numpy(np.float64)
    # Compared as objects: a missing label is None in one frame and nan in another.
    named = frame["label"].notna().to_numpy()
    box = np.nan_to_num(corners).any(axis=1) | named
    index = {label: i for i, label in enumerate(labels)}
    _check(frame, corners, named, box, index)
    classes = np.array([index.get(label, -1) for label in frame["label"]], np.int64)
    groups = frame.groupby("image_path", sort=False).indices
    return [
        BoxedImage(
            str(path),
            image_location(root, str(path)),
            corners[rows][box[rows]],
            classes[rows][box[rows]],
        )
        for path, rows in groups.items()
    ]


def _require(frame: pd.DataFrame) -> None:
    missing = [name for name in ("image_path", *BOX, "label") if name not in frame]
    if missing:
        raise AnnotationError(
            f"The annotations have no column {missing[0]!r}; read them with read_annotations."
        )


def _check(
    frame: pd.DataFrame,
    corners: NDArray[np.float64],
    named: NDArray[np.bool_],
    box: NDArray[np.bool_],
    index: dict[str, int],
) -> None:
    flat = box & ~((corners[:, 2:] > corners[:, :2]).all(axis=1))
    unknown = named & ~frame["label"].isin(list(index)).to_numpy()
    for bad, why in (
        (flat, "has a box without area"),
        (box & ~named, "has a box without a label"),
        (unknown, f"has a label that is not among {', '.join(index)}"),
    ):
        if bad.any():
            i = int(np.argmax(bad))
            row = frame.iloc[i]
            raise AnnotationError(
                f"Row {i} of the annotations ({row['image_path']}, {row['label']}, "
                f"{corners[i].tolist()}) {why}; mend or drop it."
            )
