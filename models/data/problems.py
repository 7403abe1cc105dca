"""What can be wrong with annotations, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import RasterError
from ._raw import number
from .frame import BOX, boxes_of, is_negative
from .headers import image_header, image_location, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

EDGE_TOLERANCE = 0.5
"""Pixels by which a box may pass the image's edge: rounding (YOLO's decimals, map coordinates)."""

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class AnnotationProblem:
    """A row that can't be used.

    Parameters
    ----------
    file
        The annotation file, or the name of the frame.
    row
        The line of a table, the object of a VOC file, the id of a COCO annotation, the number of a
        feature (from 1), or the position in a frame (from 0).
    why
        What is wrong with it.
    unit
        What `row` counts.
    """

    file: str
    row: int
    why: str
    unit: str = "row"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.row}: {self.why}"


def image_sizes(table: pd.DataFrame, root: str) -> dict[str, Size | str]:
    """(width, height) of each image from its header, or why it can't be had."""
    sizes: dict[str, Size | str] = {}
    for path in dict.fromkeys(table["image_path"].dropna()):
        try:
            header = image_header(image_location(root, path))
            sizes[path] = (header.width, header.height)
        except RasterError as error:
            sizes[path] = str(error).rstrip(".")
    return sizes


def looks_normalized(table: pd.DataFrame) -> bool:
    """Whether all boxes lie between 0 and 1, so that they are hardly pixels."""
    rows = ~is_negative(table) & table["why"].isna().to_numpy()
    boxes = boxes_of(table)[rows]
    return len(boxes) > 0 and bool(((boxes >= 0) & (boxes <= 1)).all())


def scale_relative(table: pd.DataFrame, sizes: dict[str, Size | str]) -> None:
    """Turn fractions of an image's size into pixels, in place."""
    rows = np.flatnonzero(table["relative"])
    known = [sizes.get(path, "") for path in table["image_path"].iloc[rows]]
    factors = np.array([(np.nan, np.nan) if isinstance(s, str) else s for s in known], float)
    boxes = boxes_of(table)
    boxes[rows] *= np.tile(factors.reshape(-1, 2), 2)
    table[list(BOX)] = boxes


def find_problems(
    table: pd.DataFrame,
    sizes: dict[str, Size | str] | None,
    labels: tuple[str, ...] | None,
    *,
    clip: bool,
) -> NDArray[np.object_]:
    """Why each row can't be used, or None.

    Parameters
    ----------
    table
        Columns of `raw_table`, in pixels, and ``where``, by which another row is named.
    sizes
        Of the images; None doesn't look at them.
    labels
        The labels that may occur; None for any.
    clip
        Whether boxes that reach beyond their image are no problem; those around points never are.
    """
    why: NDArray[Any] = table["why"].to_numpy(object).copy()
    boxes, negative = boxes_of(table), is_negative(table)
    x0, y0, x1, y1 = boxes.T
    box = ~negative

    def blame(mask: Any, say: Callable[[int], str]) -> None:
        for i in np.flatnonzero(mask):
            why[i] = say(int(i)) if why[i] is None else why[i]

    images = table["image_path"].to_numpy(object)
    names = table["label"].to_numpy(object)
    blame(np.array([path is None for path in images], bool), lambda i: "it names no image")
    if sizes is not None:
        lost = np.array([isinstance(sizes.get(path, ""), str) for path in images], bool)
        blame(lost, lambda i: _lower(str(sizes[images[i]])))
    blame(
        ~np.isfinite(boxes).all(axis=1), lambda i: f"{_box(boxes[i])} is not made of finite numbers"
    )
    blame(x0 > x1, lambda i: f"its xmin {number(x0[i])} is greater than its xmax {number(x1[i])}")
    blame(y0 > y1, lambda i: f"its ymin {number(y0[i])} is greater than its ymax {number(y1[i])}")
    blame(box & ((x0 == x1) | (y0 == y1)), lambda i: f"{_box(boxes[i])} has no area")
    if sizes is not None:
        known = [sizes.get(path, "") for path in images]
        _blame_outside(blame, boxes, known, table["at_point"].to_numpy(bool), clip)
    blame(box & np.array([name is None for name in names], bool), lambda i: "it has no label")
    if labels is not None:
        unknown = box & ~np.isin(names.astype(str), labels)
        blame(unknown, lambda i: f"its label {names[i]!r} is none of {', '.join(labels)}")
    _blame_repeats(blame, table, negative, why)
    return why


def _blame_outside(
    blame: Callable[[Any, Callable[[int], str]], None],
    boxes: NDArray[np.float64],
    sizes: list[Size | str],
    at_point: NDArray[np.bool_],
    clip: bool,
) -> None:
    limits = np.array([(np.inf, np.inf) if isinstance(s, str) else s for s in sizes], float)
    limits = limits.reshape(-1, 2)
    (x0, y0, x1, y1), (width, height) = boxes.T, limits.T
    empty = (boxes == 0).all(axis=1)
    outside = ~empty & ((x0 >= width) | (y0 >= height) | (x1 <= 0) | (y1 <= 0))
    beyond = boxes[:, :2].min(axis=1) < -EDGE_TOLERANCE
    beyond |= (boxes[:, 2:] > limits + EDGE_TOLERANCE).any(axis=1)

    def image(i: int) -> str:
        return f"the image, which is {sizes[i][0]} × {sizes[i][1]} pixels"

    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    blame(
        at_point & ~((x >= 0) & (x <= width) & (y >= 0) & (y <= height)),
        lambda i: f"its point ({number(x[i])}, {number(y[i])}) lies outside {image(i)}",
    )
    blame(outside, lambda i: f"{_box(boxes[i])} lies outside {image(i)}")
    blame(
        beyond & ~at_point & (not clip),
        lambda i: f"{_box(boxes[i])} reaches beyond {image(i)} (clip=True cuts it off)",
    )


def _blame_repeats(
    blame: Callable[[Any, Callable[[int], str]], None],
    table: pd.DataFrame,
    negative: NDArray[np.bool_],
    why: NDArray[np.object_],
) -> None:
    """Rows that stand twice, and images that are said to be empty beside a box in them."""
    where = table["where"].to_numpy(object)
    sound = np.array([reason is None for reason in why], bool)
    keys = table[["image_path", *BOX, "label"]].copy()
    keys.loc[negative, "label"] = None
    group = keys.groupby(list(keys.columns), dropna=False, sort=False).ngroup().to_numpy()
    first: dict[int, int] = {}
    for i in np.flatnonzero(sound):
        first.setdefault(int(group[i]), int(i))
    again = np.array([sound[i] and first[int(group[i])] != i for i in range(len(table))], bool)
    blame(again, lambda i: f"it repeats {where[first[int(group[i])]]}")
    images = table["image_path"].to_numpy(object)
    boxed = {images[i]: i for i in np.flatnonzero(sound & ~negative)[::-1]}
    contradicted = np.array([path in boxed for path in images], bool) & negative
    blame(
        contradicted,
        lambda i: (
            f"it says that {shown(images[i])} is empty, but {where[boxed[images[i]]]} is a box in it"
        ),
    )


def _lower(sentence: str) -> str:
    """A sentence as part of another."""
    return f"its image{sentence[9:]}" if sentence.startswith("The image") else sentence


def _box(corners: NDArray[np.float64]) -> str:
    return f"its box ({', '.join(number(value) for value in corners)})"
