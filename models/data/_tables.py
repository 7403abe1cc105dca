"""CSV files and pandas frames with boxes, points or WKT geometries in pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import AnnotationError
from ._raw import RAW_COLUMNS, RawRows, ReadOptions, raw_table
from ._shapes import POINTS_NEED, Boxes, bounds_of
from .frame import BOX

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_WKT_COLUMNS = ("geometry", "polygon")


def read_csv(path: Path, root: str, options: ReadOptions) -> RawRows:
    """Read a CSV with a header.

    Boxes are taken from xmin, ymin, xmax, ymax, else from WKT in ``geometry`` or ``polygon``, else
    from x and y. Four zeros, or four empty values, are a negative image.
    """
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # commas at the lines' ends
            table = pd.read_csv(
                path,
                dtype=str,
                skipinitialspace=True,
                keep_default_na=False,
                skip_blank_lines=False,  # the numbers of lines stay the file's
                index_col=False,
                encoding="utf-8-sig",
            )
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        reason = reason.removeprefix("Error tokenizing data. C error: ")
        raise AnnotationError(f"{path} is not a readable CSV file: {reason}.") from error
    table = table.fillna("").apply(lambda column: column.str.strip())
    table.columns = [str(name).strip() for name in table.columns]
    table = table.loc[:, [not name.startswith("Unnamed:") for name in table.columns]]
    table = table[(table != "").any(axis=1)]
    return RawRows(str(path), root, "line", _raw(str(path), table, table.index + 2, options))


def read_table(name: str, table: pd.DataFrame, root: str, options: ReadOptions) -> RawRows:
    """Read a frame that is in memory; rows are numbered from 0."""
    plain = table.astype(object).where(table.notna(), "").reset_index(drop=True)
    return RawRows(name, root, "row", _raw(name, plain, plain.index, options))


def _raw(name: str, table: pd.DataFrame, row: pd.Index, options: ReadOptions) -> pd.DataFrame:
    _need(name, table, options)
    box_columns = _box_columns(name, table)
    table = table.reset_index(drop=True)
    boxes = _read_boxes(table, box_columns, options)
    empty = ["" for _ in range(len(table))]
    images = table["image_path"] if options.image_path is None else empty
    labels = table["label"] if options.label is None else empty
    raw = raw_table(
        row.to_numpy(),
        [_text(value) for value in images],
        boxes.corners,
        [_text(value) for value in labels],
        why=boxes.why,
        relative=options.normalized,
        at_point=boxes.at_point,
    )
    for column in table.columns.difference([*RAW_COLUMNS, *_WKT_COLUMNS], sort=False):
        raw[column] = _typed(table[column])
    return raw


def _need(name: str, table: pd.DataFrame, options: ReadOptions) -> None:
    for column, given in (("image_path", options.image_path), ("label", options.label)):
        if given is None and column not in table:
            raise AnnotationError(
                f"{name} has no column {column!r} (it has {', '.join(map(str, table.columns))}): add "
                f"it, or pass {column}=."
            )


def _box_columns(name: str, table: pd.DataFrame) -> tuple[str, ...]:
    for columns in (BOX, *((column,) for column in _WKT_COLUMNS), ("x", "y")):
        if set(columns) <= set(table.columns):
            return columns
    raise AnnotationError(
        f"{name} has no boxes: it needs the columns xmin, ymin, xmax, ymax, or geometry (WKT), or x, "
        f"y; it has {', '.join(map(str, table.columns))}."
    )


def _read_boxes(table: pd.DataFrame, columns: tuple[str, ...], options: ReadOptions) -> Boxes:
    radius = options.point_buffer
    if columns == BOX:
        values, why = _numbers(table, BOX)
        return Boxes(values, np.zeros(len(table), bool), why)
    if columns == ("x", "y"):
        values, why = _numbers(table, columns)
        negative = (values == 0).all(axis=1)
        if radius is None:
            why = [
                known or (None if empty else f"it {POINTS_NEED}")
                for known, empty in zip(why, negative, strict=True)
            ]
        corners = np.tile(values, 2) + np.array([-1, -1, 1, 1]) * (radius or 0)
        corners[negative] = 0
        return Boxes(corners, ~negative, why)
    return _from_wkt(table[columns[0]], radius)


def _from_wkt(column: Any, radius: float | None) -> Boxes:
    """Boxes of WKT texts or shapely geometries; an empty one is a negative image."""
    import shapely

    given = column.to_numpy(object)
    texts = np.array([isinstance(value, str) for value in given])
    geometry = given.copy()
    geometry[texts] = shapely.from_wkt(given[texts].astype(str), on_invalid="ignore")
    boxes = bounds_of(geometry, None if radius is None else (radius, radius))
    corners, why = boxes.corners, boxes.why
    for i, value in enumerate(given):
        if geometry[i] is None and value != "":
            why[i] = f"its geometry {str(value)[:40]!r} is not WKT"
        elif geometry[i] is None or geometry[i].is_empty:
            corners[i], why[i] = 0, None
    return Boxes(corners, boxes.at_point, why)


def _numbers(
    table: pd.DataFrame, columns: tuple[str, ...]
) -> tuple[NDArray[np.float64], list[str | None]]:
    """Columns as numbers, all zeros where all are empty, and what is wrong with each row."""
    import pandas as pd

    given = table[list(columns)]
    values = given.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64, copy=True)
    empty = (given == "").to_numpy()
    values[empty.all(axis=1)] = 0
    why: list[str | None] = [None] * len(table)
    for i, j in np.argwhere(~np.isfinite(values))[::-1]:
        found = "empty" if empty[i, j] else f"{given.iat[i, j]!r}, not a number"
        why[i] = f"its {columns[j]} is {found}"
    return values, why


def _text(value: object) -> str | None:
    """A label or path as text: 3.0 from a frame of numbers stays '3.0', nothing is None."""
    return str(value).strip() or None


def _typed(column: Any) -> Any:
    """A further column as numbers, if it holds nothing else."""
    import pandas as pd

    numbers: Any = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().eq(column != "").all() else column
