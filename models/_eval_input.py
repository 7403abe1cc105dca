"""What is compared: predictions and labels in one shape, from frames and files, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..catalog.errors import AnnotationError
from ._eval_files import map_crs, match_names, read_predictions, read_truth
from ._eval_matching import Pairs, overlapping_boxes, overlapping_polygons

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAP = "(map)"
"""Stands for the image where both sides are compared on the map."""


@dataclass(frozen=True, slots=True)
class Side:
    """Labelled objects, or predicted ones.

    Parameters
    ----------
    rows
        The N rows of the frame, with the frame's own index.
    image
        int64 (N,): index into the images.
    boxes
        float64 (N, 4), in pixels, or bounds in map coordinates.
    polygons
        object (N,), in map coordinates; None in pixels.
    labels
        object (N,): text, or None.
    scores
        float64 (N,); None of labelled objects.
    """

    rows: Any
    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    polygons: NDArray[np.object_] | None
    labels: NDArray[np.object_]
    scores: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.image)

    def where(self, keep: NDArray[np.bool_]) -> Side:
        """Those objects for which `keep` (N,) is true."""
        return Side(
            self.rows[keep],
            self.image[keep],
            self.boxes[keep],
            None if self.polygons is None else self.polygons[keep],
            self.labels[keep],
            None if self.scores is None else self.scores[keep],
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Both sides, over the images that the labels name.

    Parameters
    ----------
    images
        As the labels name them, those without objects included.
    truth, found
        Labelled and predicted objects; the latter sorted as given.
    ignored
        How many predictions lie on images that the labels do not name, by image.
    root_dir
        Folder of relative image paths, where known.
    crs
        Of map coordinates; None in pixels.
    """

    images: tuple[str, ...]
    truth: Side
    found: Side
    ignored: dict[str, int] = field(default_factory=dict)
    root_dir: str | None = None
    crs: Any = None

    def pairs(self) -> Pairs:
        """All labelled and predicted objects on the same image that share some area."""
        if self.truth.polygons is not None and self.found.polygons is not None:
            return overlapping_polygons(self.truth.polygons, self.found.polygons)
        truth, found = (_by_image(side, len(self.images)) for side in (self.truth, self.found))
        parts = []
        for t, f in zip(truth, found, strict=True):
            if len(t) and len(f):
                part = overlapping_boxes(self.truth.boxes[t], self.found.boxes[f])
                parts.append(Pairs(t[part.truth], f[part.found], part.shared, part.iou))
        return Pairs.joined(parts)


def _by_image(side: Side, images: int) -> list[NDArray[np.int64]]:
    order = np.argsort(side.image, kind="stable")
    return np.split(order, np.searchsorted(side.image[order], np.arange(1, images)))


def compared(
    predictions: pd.DataFrame | str | Path,
    truth: pd.DataFrame | str | Path,
    *,
    label_column: str | None,
    root_dir: str | Path | None,
) -> Compared:
    """Bring predictions and labels together; their labels only if there is a `label_column`.

    Raises
    ------
    AnnotationError
        If one of them can't be read, lacks a column, or is in other coordinates than the other;
        or if no predicted image is a labelled one.
    """
    found = read_predictions(predictions)
    _needs(found, ("score", *([label_column] if label_column else [])), "The predictions")
    labelled = read_truth(truth, on_map=map_crs(found) is not None, root_dir=root_dir)
    if label_column:
        _needs(labelled, ("label",), "The labels")
    if map_crs(labelled) is not None:
        return _on_map(found, labelled, label_column)
    return _in_pixels(found, labelled, label_column, root_dir)


def _needs(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if not missing:
        return
    name = missing[0]
    remedy = {
        "score": "average precision needs one: give the detector's, or 1.0 to each row",
        "label": 'add one, such as "Tree" for each row',
    }.get(name, f"the columns are {', '.join(map(str, frame.columns))}")
    raise AnnotationError(f"{what} have no column {name!r}; {remedy}.")


def _on_map(found: Any, labelled: Any, label_column: str | None) -> Compared:
    import geopandas as gpd
    import shapely

    if not isinstance(found, gpd.GeoDataFrame) or map_crs(found) is None:
        raise AnnotationError(
            f"The labels are in map coordinates ({labelled.crs.to_string()}), but the predictions in "
            "pixels: give predictions with a geometry and a CRS, or convert the labels with "
            "read_annotations(…, image_path=…)."
        )
    here = found.to_crs(labelled.crs)
    sides = []
    true_column = "label" if label_column else None
    for frame, column, what in (
        (labelled, true_column, "labels"),
        (here, label_column, "predictions"),
    ):
        polygons = frame.geometry.to_numpy()
        kinds = set(shapely.get_type_id(polygons).tolist())
        if kinds - {-1, 3, 6}:
            raise AnnotationError(
                f"The {what} hold points or lines, and only areas overlap: read points with "
                "read_annotations(…, point_buffer=…)."
            )
        there = ~(shapely.is_empty(polygons) | shapely.is_missing(polygons))
        rows, polygons = frame[there], polygons[there]
        sides.append(
            Side(
                rows=rows,
                image=np.zeros(len(rows), np.int64),
                boxes=shapely.bounds(polygons).reshape(-1, 4),
                polygons=polygons,
                labels=_text(rows, column),
                scores=None if what == "labels" else _scores(rows),
            )
        )
    if len(labelled) == 0:
        raise AnnotationError("The labels hold no row, so there is nothing to compare with.")
    return Compared((MAP,), *sides, crs=labelled.crs)


def _in_pixels(
    found: Any, labelled: Any, label_column: str | None, root_dir: str | Path | None
) -> Compared:
    _needs(labelled, ("image_path", *CORNERS), "The labels")
    _needs(found, ("image_path", *CORNERS), "The predictions")
    if len(labelled) == 0:
        raise AnnotationError(
            "The labels name no image, so there is nothing to compare with; an image without objects "
            "is named by one row whose box is all zeros."
        )
    images = tuple(dict.fromkeys(labelled["image_path"].astype(str)))
    place = {name: index for index, name in enumerate(images)}
    names = list(dict.fromkeys(found["image_path"].astype(str)))
    same = match_names(names, images)
    if names and not any(same.values()):
        raise AnnotationError(
            f"No predicted image is a labelled one: predictions name {names[0]!r}, labels name "
            f"{images[0]!r}; make the file names (the column image_path) equal."
        )
    counts = found["image_path"].astype(str).value_counts()
    ignored = {name: int(counts[name]) for name in names if same[name] is None}
    here = found[~found["image_path"].astype(str).isin(list(ignored))]
    boxes, found_boxes = _boxes(labelled, "labels"), _boxes(here, "predictions")
    # An image without objects has one row with a box of zeros.
    real = (boxes != 0).any(axis=1)
    objects = labelled[real]
    truth = Side(
        rows=objects,
        image=objects["image_path"].astype(str).map(place).to_numpy(np.int64),
        boxes=boxes[real],
        polygons=None,
        labels=_text(objects, "label" if label_column else None),
    )
    predicted = Side(
        rows=here,
        image=np.array([place[str(same[n])] for n in here["image_path"].astype(str)], np.int64),
        boxes=found_boxes,
        polygons=None,
        labels=_text(here, label_column),
        scores=_scores(here),
    )
    folder = root_dir or labelled.attrs.get("root_dir")
    return Compared(images, truth, predicted, ignored, None if folder is None else str(folder))


def _boxes(frame: Any, what: str) -> NDArray[np.float64]:
    boxes = frame[list(CORNERS)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if bad.any():
        row = frame.loc[bad, list(CORNERS)].iloc[0]
        raise AnnotationError(
            f"In the {what}, row {frame.index[bad][0]} has the box {list(row)}, which must be numbers "
            f"xmin ≤ xmax and ymin ≤ ymax{_and_more(int(bad.sum()) - 1)}."
        )
    return boxes


def _scores(frame: Any) -> NDArray[np.float64]:
    scores = np.asarray(pd.to_numeric(frame["score"], errors="coerce"), np.float64)
    bad = ~np.isfinite(scores)
    if bad.any():
        raise AnnotationError(
            f"In the predictions, row {frame.index[bad][0]} has the score "
            f"{frame['score'][bad].iloc[0]!r}, which is no number{_and_more(int(bad.sum()) - 1)}."
        )
    return scores


def _and_more(count: int) -> str:
    return f" ({count} more rows are wrong, too)" if count else ""


def _text(frame: Any, column: str | None) -> NDArray[np.object_]:
    """A column as text or None; all None without a column."""
    if column is None:
        return np.full(len(frame), None, object)
    return np.array([None if pd.isna(value) else str(value) for value in frame[column]], object)
