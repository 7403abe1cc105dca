"""Annotations of every usual kind, read into one frame and checked row by row."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...catalog.errors import AnnotationError
from ._formats import Format, read_rows
from ._raw import RAW_COLUMNS, RawRows, ReadOptions
from .frame import BOX, annotation_frame, boxes_of, is_negative
from .headers import is_remote
from .problems import (
    AnnotationProblem,
    Size,
    find_problems,
    image_sizes,
    looks_normalized,
    scale_relative,
)

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

log = logging.getLogger("geosweep")


def read_annotations(
    source: str | Path | pd.DataFrame | Sequence[str | Path],
    *,
    root_dir: str | Path | None = None,
    image_path: str | Path | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    format: Format | None = None,
    normalized: bool = False,
    point_buffer: float | None = None,
    crs: str | None = None,
    image_size: Size | None = None,
    check_images: bool = True,
    clip: bool = False,
    on_error: Literal["raise", "drop"] = "raise",
) -> gpd.GeoDataFrame:
    """Read labelled boxes into one frame; DeepForest's ``read_file``.

    Parameters
    ----------
    source
        A file, a folder of files of one kind, several of them, or a frame in memory:

        - CSV with ``image_path``, ``label`` and ``xmin, ymin, xmax, ymax`` (or ``geometry`` as WKT, or
          ``x, y``); a row of four zeros, or of four empty values, says that its image is empty;
        - Pascal VOC XML; a file without objects is an empty image;
        - COCO JSON: boxes, or the bounds of segmentations; images without annotations are empty;
        - YOLO text with ``classes.txt`` or ``data.yaml`` beside it (or `labels` in their order);
          images are looked for in ``images/`` beside ``labels/``, else in the same folder;
        - GeoJSON, GeoPackage, shapefile, FlatGeobuf, GeoParquet in map coordinates of any CRS, which
          go through each raster's transform: the bounds of polygons, boxes around points.
    root_dir
        Folder of relative image paths; None for the folder of the annotation file.
    image_path
        The image of all rows, whatever the file says.
    label
        The label of all boxes, whatever the file says.
    labels
        The labels that may occur: others are a problem. None for any.
    format
        Where the file's name doesn't tell.
    normalized
        Whether coordinates of CSV, COCO and frames are fractions of the image's size. YOLO's always
        are.
    point_buffer
        Half the side of the box around a point: in pixels for tables, in units of the raster's CRS
        for map coordinates. Boxes around points are cut off at the image's edge.
    crs
        CRS of vector files, where they name none or a wrong one; ``pixel`` for pixels.
    image_size
        (width, height) of every image, so that none is opened.
    check_images
        Whether images are opened (their headers only) to see that they are there and hold their
        boxes.
    clip
        Whether boxes that reach beyond their image are cut off at its edge rather than a problem. Up
        to half a pixel beyond is rounding, and always cut off.
    on_error
        ``drop`` leaves out rows with problems, and says so in the log. An image none of whose rows is
        left does not occur in the frame: it is not taken for an empty one.

    Returns
    -------
    geopandas.GeoDataFrame
        See `annotation_frame`. Further columns of tables and vector files are kept.
        ``attrs["root_dir"]`` is the folder of relative paths.

    Raises
    ------
    AnnotationError
        If a file can't be read, or a row has a problem: the message names the first and counts the
        others, `check_annotations` lists them all.
    """
    if on_error not in ("raise", "drop"):
        raise AnnotationError(f"on_error is {on_error!r}; it can be 'raise' or 'drop'.")
    options = _options(
        root_dir, image_path, label, labels, normalized, point_buffer, crs, image_size
    )
    parts = read_rows(source, format, options)
    table, root, sizes, problems = _examine(parts, options, check_images=check_images, clip=clip)
    if problems and on_error == "raise":
        raise AnnotationError(_sentence(problems))
    if problems:
        log.warning(
            "%d of %d rows of the annotations are left out; the first is %s.",
            len(problems),
            len(table),
            problems[0],
        )
        table = table[table["why"].isna()]
    return _frame(table, root, sizes)


def check_annotations(
    source: str | Path | pd.DataFrame | Sequence[str | Path],
    *,
    root_dir: str | Path | None = None,
    image_path: str | Path | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    format: Format | None = None,
    normalized: bool = False,
    point_buffer: float | None = None,
    crs: str | None = None,
    image_size: Size | None = None,
    check_images: bool = True,
    clip: bool = False,
) -> list[AnnotationProblem]:
    """List the rows that `read_annotations`, called with the same arguments, would not take.

    Missing or unreadable images, values that are no numbers, ``xmin > xmax``, boxes without area,
    boxes outside their image or beyond its edge, missing and unknown labels, rows that stand twice,
    images said to be empty beside a box in them. A row is listed once, for the first of these.

    Raises
    ------
    AnnotationError
        If a file can't be read at all.
    """
    options = _options(
        root_dir, image_path, label, labels, normalized, point_buffer, crs, image_size
    )
    parts = read_rows(source, format, options)
    return _examine(parts, options, check_images=check_images, clip=clip)[3]


def _options(
    root_dir: str | Path | None,
    image_path: str | Path | None,
    label: str | None,
    labels: Sequence[str] | None,
    normalized: bool,
    point_buffer: float | None,
    crs: str | None,
    image_size: Size | None,
) -> ReadOptions:
    if point_buffer is not None and not point_buffer > 0:
        raise AnnotationError(f"point_buffer is {point_buffer}; it must be greater than 0.")
    return ReadOptions(
        root_dir=None if root_dir is None else str(root_dir),
        image_path=None if image_path is None else str(image_path),
        label=label,
        labels=None if labels is None else tuple(labels),
        normalized=normalized,
        point_buffer=point_buffer,
        crs=crs,
        image_size=image_size,
    )


def _examine(
    parts: list[RawRows], options: ReadOptions, *, check_images: bool, clip: bool
) -> tuple[Any, str, dict[str, Size | str] | None, list[AnnotationProblem]]:
    """All rows in pixels, where relative paths start, sizes of images, and what is wrong."""
    table, root = _combine(parts)
    if options.image_path is not None:
        table["image_path"] = options.image_path
    if options.label is not None:
        table.loc[~is_negative(table), "label"] = options.label
    for part in parts:
        for what in part.skipped:
            log.info("%s: left out %s.", part.file, what)
        if part.unit != "feature" and not part.table["relative"].to_numpy().any():
            _refuse_normalized(part)
    sizes: dict[str, Size | str] | None = None
    if options.image_size is not None:
        sizes = dict.fromkeys(table["image_path"].dropna(), options.image_size)
    elif check_images:
        sizes = image_sizes(table, root)
    if table["relative"].any():
        if sizes is None:
            raise AnnotationError(
                f"{table['file'].iloc[0]} has fractions of the images' sizes, so the images must be "
                "looked at: leave check_images=True or pass image_size=."
            )
        scale_relative(table, sizes)
    table["why"] = find_problems(table, sizes, options.labels, clip=clip)
    bad = table[table["why"].notna()]
    problems = [
        AnnotationProblem(file, int(row), why, unit)
        for file, row, why, unit in zip(
            bad["file"], bad["row"], bad["why"], bad["unit"], strict=True
        )
    ]
    return table, root, sizes, problems


def _combine(parts: list[RawRows]) -> tuple[Any, str]:
    """One table of all parts; image paths are made relative to a folder above all of them."""
    import pandas as pd

    roots = {part.root for part in parts}
    # os.path on purpose: pathlib has no common path, and would resolve links.
    root = roots.pop() if len(roots) == 1 else os.path.commonpath(map(os.path.abspath, roots))
    tables = []
    for part in parts:
        one = part.table.copy()
        several = len(parts) > 1
        one["file"], one["unit"] = part.file, part.unit
        one["where"] = [
            f"{part.unit} {row}{f' of {part.file}' if several else ''}" for row in one["row"]
        ]
        if part.root != root:
            one["image_path"] = [_from(root, part.root, path) for path in one["image_path"]]
        tables.append(one)
    filled = [table for table in tables if len(table)] or tables[:1]
    return pd.concat(filled, ignore_index=True), root


def _from(root: str, folder: str, path: str | None) -> str | None:
    if path is None or is_remote(path) or Path(path).is_absolute():
        return path
    return os.path.relpath(os.path.join(folder, path), root)  # noqa: PTH118


def _refuse_normalized(part: RawRows) -> None:
    if looks_normalized(part.table):
        raise AnnotationError(
            f"All coordinates of {part.file} lie between 0 and 1: if they are fractions of the images' "
            "sizes, say so with normalized=True."
        )


def _sentence(problems: list[AnnotationProblem]) -> str:
    more = len(problems) - 1
    others = f" ({more} more rows have problems.)" if more > 1 else ""
    others = " (One more row has a problem.)" if more == 1 else others
    return f"{problems[0]}; mend it, or leave such rows out with on_error='drop'.{others}"


def _frame(table: Any, root: str, sizes: dict[str, Size | str] | None) -> gpd.GeoDataFrame:
    boxes = boxes_of(table)
    if sizes is not None:
        limits = np.array([sizes[path] for path in table["image_path"]], float).reshape(-1, 2)
        boxes = np.clip(boxes, 0, np.tile(limits, 2))
    frame = annotation_frame(table["image_path"], boxes, table["label"], root_dir=root)
    ours = [*RAW_COLUMNS, "file", "unit", "where", "geometry", *BOX]
    for column in table.columns.difference(ours, sort=False):
        frame[column] = table[column].to_numpy()
    return frame
