"""How well predictions agree with labels: `evaluate`, and the pieces that it is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..catalog.errors import AnnotationError, JobError
from ._eval_input import Compared, compared
from ._eval_matching import (
    Pairs,
    box_iou,
    match_boxes,
    match_by_overlap,
    match_by_score,
)
from ._eval_result import Evaluation
from ._eval_scores import BoxMetrics, CocoSide, average_precision, box_metrics, coco_scores, ratio

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from ._eval_tables import Matching

__all__ = [
    "BoxMetrics",
    "Evaluation",
    "average_precision",
    "box_iou",
    "box_metrics",
    "evaluate",
    "match_boxes",
]


def evaluate(
    predictions: pd.DataFrame | str | Path,
    truth: pd.DataFrame | str | Path,
    iou: float = 0.4,
    *,
    score_threshold: float = 0.0,
    matching: Literal["overlap", "score"] = "overlap",
    label_column: str = "label",
    class_agnostic: bool = False,
    coco: bool = True,
    root_dir: str | Path | None = None,
) -> Evaluation:
    """Compare predictions with labels, object by object.

    Parameters
    ----------
    predictions
        A frame with ``image_path``, ``xmin`` … ``ymax`` (pixels), ``label`` and ``score``, as
        `predict_tile`, `Result.to_geopandas` or DeepForest give it; or a file of one (CSV,
        GeoParquet, GeoPackage …).
    truth
        An annotation frame, or a file that `read_annotations` takes; images without objects are part
        of it. A frame or file in map coordinates is compared on the map, by polygons, all images at
        once: predictions then need a geometry with a CRS.
    iou
        Overlap that makes a match.
    score_threshold
        Predictions below it count for average precision and curves alone.
    matching
        ``overlap``: one to one so that the area shared by all matches is largest, as DeepForest's
        evaluation does; a match must exceed `iou`. ``score``: by falling score, each prediction takes
        the free object that it overlaps most, from `iou` on, as COCO does. Average precision always
        uses the latter.
    label_column
        Column of the predictions that is compared with the true label, such as ``cropmodel_label``.
    class_agnostic
        Compare places alone, whatever the labels.
    coco
        Whether to compute COCO's mean average precision, which needs ``geosweep[train]``.
    root_dir
        Folder of relative image paths in `truth`; default: that of its file.

    Returns
    -------
    Evaluation

    Raises
    ------
    AnnotationError
        If one side can't be read, or the two don't fit: other coordinates, no common image, no
        common label.
    JobError
        If an argument is out of range.
    """
    if not 0 < iou <= 1:
        raise JobError(f"iou is {iou}, but must be greater than 0 and at most 1.")
    if matching not in ("overlap", "score"):
        raise JobError(f"matching is {matching!r}, but must be 'overlap' or 'score'.")
    sides = compared(
        predictions,
        truth,
        label_column=None if class_agnostic else label_column,
        root_dir=root_dir,
    )
    if not class_agnostic:
        _check_labels(sides, label_column)
    return _evaluation(
        sides,
        iou=iou,
        score_threshold=score_threshold,
        matching=matching,
        label_column=label_column,
        class_agnostic=class_agnostic,
        coco=coco,
    )


def _evaluation(
    sides: Compared,
    *,
    iou: float,
    score_threshold: float,
    matching: str,
    label_column: str,
    class_agnostic: bool,
    coco: bool,
) -> Evaluation:
    from . import _eval_tables as tables

    pairs = sides.pairs()
    matched = _match(sides, pairs, iou, score_threshold, matching, class_agnostic)
    images: Any = tables.per_image(matched, sides.images)
    labelled = images[images["truths"] > 0]
    empty = images[images["truths"] == 0]
    both = labelled[labelled["predictions"] > 0]
    truths, predictions = len(matched.truth), len(matched.found)
    hits, correct = int(matched.hits.sum()), int(matched.same.sum())
    names = [] if class_agnostic else tables.label_names(sides.truth, sides.found)
    curves = {
        name or "(all)": tables.class_curve(name, sides.truth, sides.found, pairs, iou)
        for name in (None, *names)
    }
    columns = {} if class_agnostic else {"label": label_column}
    columns |= {c: c for c in tables.crop_columns(sides.found.rows) if c != label_column}
    return Evaluation(
        iou=iou,
        score_threshold=score_threshold,
        matching=matching,
        images=len(images),
        empty_images=len(empty),
        truths=truths,
        predictions=predictions,
        matched=hits,
        correct=correct,
        misclassified=hits - correct,
        missed=truths - hits,
        false_positives=predictions - hits,
        precision=ratio(hits, predictions),
        recall=ratio(hits, truths),
        f1=ratio(2 * hits, truths + predictions),
        image_precision=ratio(float(both["precision"].sum()), len(both)),
        image_recall=ratio(float(labelled["recall"].sum()), len(labelled)),
        label_accuracy=ratio(correct, hits),
        average_precision=average_precision(*curves["(all)"]),
        coco=_coco(sides, pairs, names) if coco else {},
        empty_frame_accuracy=ratio(int((empty["predictions"] == 0).sum()), len(empty)),
        count_bias=float(images["count_error"].mean()),
        count_error=float(images["count_error"].abs().mean()),
        ignored=sides.ignored,
        per_class=tables.per_class(matched, names, curves),
        per_image=images,
        matches=tables.outcomes(matched, sides.images, sides.crs),
        confusion={name: tables.confusion(matched, column) for name, column in columns.items()},
        curves={name: tables.curve_table(*curve) for name, curve in curves.items()},
        root_dir=sides.root_dir,
    )


def _match(
    sides: Compared,
    pairs: Pairs,
    iou: float,
    score_threshold: float,
    matching: str,
    class_agnostic: bool,
) -> Matching:
    from ._eval_tables import Matching

    scores = sides.found.scores
    assert scores is not None
    kept = scores >= score_threshold
    found, truth = sides.found.where(kept), sides.truth
    place = np.cumsum(kept) - 1
    pairs = pairs.where(kept[pairs.found])
    pairs = replace(pairs, found=place[pairs.found])
    if matching == "overlap":
        matched = match_by_overlap(pairs, len(truth), len(found), iou)
    else:
        matched = match_by_score(pairs, scores[kept], iou)
    overlap = np.full(len(found), np.nan)
    chosen = matched[pairs.found] == pairs.truth
    overlap[pairs.found[chosen]] = pairs.iou[chosen]
    same = matched >= 0
    if not class_agnostic and len(truth):
        same &= truth.labels[matched] == found.labels
    return Matching(truth, found, matched, overlap, same)


def _coco(sides: Compared, pairs: Pairs, names: list[str]) -> dict[str, float]:
    from ._eval_tables import coco_groups

    number = {name: index for index, name in enumerate(names)}

    def classes(labels: NDArray[np.object_]) -> NDArray[np.int64]:
        # Without names, or without a label, all are of one class.
        return np.array([number.get(label, len(names)) for label in labels], np.int64)

    t, f = coco_groups(sides, pairs)
    return coco_scores(
        CocoSide(t, sides.truth.boxes, classes(sides.truth.labels)),
        CocoSide(f, sides.found.boxes, classes(sides.found.labels), sides.found.scores),
    )


def _check_labels(sides: Compared, label_column: str) -> None:
    from ._eval_tables import crop_columns, label_names

    true, said = label_names(sides.truth), label_names(sides.found)
    if not true or not said or set(true) & set(said):
        return
    others = [c for c in crop_columns(sides.found.rows) if c != label_column]
    fitting = [c for c in others if set(true) & set(sides.found.rows[c].dropna())]
    column = f"compare the column {fitting[0]!r} (label_column), or " if fitting else ""
    raise AnnotationError(
        f"No predicted label is a true one: predictions say {_listed(said)}, labels say "
        f"{_listed(true)}; {column}compare places alone (class_agnostic)."
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
