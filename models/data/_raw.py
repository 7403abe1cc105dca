"""Rows as a file has them: numbered for the user, not yet checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .frame import BOX

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the caller of `read_annotations` says about its files; see there."""

    root_dir: str | None = None
    image_path: str | None = None
    label: str | None = None
    labels: tuple[str, ...] | None = None
    normalized: bool = False
    point_buffer: float | None = None
    crs: str | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class RawRows:
    """The rows of one file.

    Parameters
    ----------
    file
        Its name, for messages.
    root
        Folder of its relative image paths.
    unit
        What a row is to somebody who looks into the file: line, object, annotation, feature.
    table
        Columns of `raw_table`.
    skipped
        What was left out on purpose, to be said in the log.
    """

    file: str
    root: str
    unit: str
    table: pd.DataFrame
    skipped: list[str] = field(default_factory=list)


def raw_table(
    row: Sequence[int] | np.ndarray,
    image_path: Sequence[str | None] | pd.Series,
    boxes: ArrayLike,
    label: Sequence[str | None] | pd.Series,
    *,
    why: Sequence[str | None] | None = None,
    relative: bool = False,
    at_point: ArrayLike = False,
) -> pd.DataFrame:
    """A table of raw rows.

    Parameters
    ----------
    row
        Numbers by which the user finds the rows in the file.
    boxes
        (N, 4), NaN where they could not be read.
    why
        For each row what is wrong with it already, or None.
    relative
        Whether boxes are fractions of the image's size.
    at_point
        Whether a box was put around a point; such boxes are cut off at the image's edge.
    """
    import pandas as pd

    count = len(row)
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    return pd.DataFrame(
        {
            "row": np.asarray(row, np.int64),
            "image_path": pd.Series(list(image_path), dtype=object),
            **dict(zip(BOX, corners.T, strict=True)),
            "label": pd.Series(list(label), dtype=object),
            "why": pd.Series([None] * count if why is None else list(why), dtype=object),
            "relative": np.full(count, relative),
            "at_point": np.broadcast_to(np.asarray(at_point, bool), count),
        }
    )


RAW_COLUMNS = ("row", "image_path", *BOX, "label", "why", "relative", "at_point")


def number(value: float) -> str:
    """A coordinate for messages, without needless decimals."""
    return f"{value:.10g}"
