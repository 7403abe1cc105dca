"""Tables of an evaluation: every object's outcome, classes, images, confusion, curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._eval_matching import match_by_score
from ._eval_scores import average_precision, precision_recall, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import geopandas as gpd
    from numpy.typing import NDArray

    from ._eval_input import Compared, Side
    from ._eval_matching import Pairs

NONE = "(none)"
"""In a confusion matrix: no object, or no prediction."""


@dataclass(frozen=True, slots=True)
class Matching:
    """What became of each object.

    Parameters
    ----------
    truth, found
        The objects; `found` from the score threshold on.
    matched
        int64 (N,): the labelled object of each prediction, or -1.
    iou
        float64 (N,): of each match; nan without.
    same
        bool (N,): matched, and of the same label.
    """

    truth: Side
    found: Side
    matched: NDArray[np.int64]
    iou: NDArray[np.float64]
    same: NDArray[np.bool_]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Matched predictions, bool (N,)."""
        return self.matched >= 0

    @property
    def located(self) -> NDArray[np.bool_]:
        """Labelled objects with a match, bool (M,)."""
        located = np.zeros(len(self.truth), bool)
        located[self.matched[self.hits]] = True
        return located


def outcomes(matching: Matching, images: tuple[str, ...], crs: Any) -> gpd.GeoDataFrame:
    """A row for each labelled object, then one for each prediction that is none of them.

    Columns: ``image_path``, ``outcome`` (correct, misclassified, missed or false), ``true_label``,
    ``predicted_label``, ``score``, ``iou``, ``truth_row`` and ``prediction_row`` (index in the
    frames given), ``predicted_geometry``, and ``geometry``: the labelled one, or that of a false
    prediction.
    """
    import geopandas as gpd
    import shapely

    truth, found, hits = matching.truth, matching.found, matching.hits
    by_truth = np.full(len(truth), -1, np.int64)
    by_truth[matching.matched[hits]] = np.flatnonzero(hits)
    one = np.concatenate([np.arange(len(truth)), np.full(int((~hits).sum()), -1)])
    other = np.concatenate([by_truth, np.flatnonzero(~hits)])
    matched = (one >= 0) & (other >= 0)
    same = matching.same[other] & matched if len(found) else np.zeros(len(one), bool)
    kind = np.select(
        [matched & same, matched, one >= 0], ["correct", "misclassified", "missed"], "false"
    )
    true_shape, found_shape = (
        shapely.box(*side.boxes.T) if side.polygons is None else side.polygons
        for side in (truth, found)
    )
    predicted = _pick(found_shape, other)
    assert found.scores is not None
    place = np.where(one >= 0, _take(truth.image, one, -1), _take(found.image, other, -1))
    return gpd.GeoDataFrame(
        {
            "image_path": np.array(images, object)[place],
            "outcome": kind.astype(object),
            "true_label": _pick(truth.labels, one),
            "predicted_label": _pick(found.labels, other),
            "score": _take(found.scores, other, np.nan),
            "iou": np.where(matched, _take(matching.iou, other, np.nan), np.nan),
            "truth_row": _pick(truth.rows.index.to_numpy(object), one),
            "prediction_row": _pick(found.rows.index.to_numpy(object), other),
            "predicted_geometry": gpd.GeoSeries(predicted, crs=crs),
        },
        geometry=np.where(one >= 0, _pick(true_shape, one), predicted),
        crs=crs,
    )


Curve = tuple["NDArray[np.bool_]", "NDArray[np.float64]", int]
"""Which predictions are right, their scores, and how many objects there are to find."""


def per_class(
    matching: Matching, names: Sequence[str], curves: Mapping[str, Curve]
) -> pd.DataFrame:
    """A row for each label."""
    truth, found = matching.truth, matching.found
    rows = []
    located, hits = matching.located, matching.hits
    for label in names:
        mine, said = truth.labels == label, found.labels == label
        correct = int((matching.same & said).sum())
        reached = int((mine & located).sum())
        rows.append(
            {
                "label": label,
                "truths": int(mine.sum()),
                "predictions": int(said.sum()),
                "correct": correct,
                "misclassified": reached - correct,
                "missed": int((mine & ~located).sum()),
                "false_positives": int((said & ~hits).sum()),
                "precision": ratio(correct, int(said.sum())),
                "recall": ratio(correct, int(mine.sum())),
                "f1": ratio(2 * correct, int(said.sum() + mine.sum())),
                "located_precision": ratio(correct, int((said & hits).sum())),
                "located_recall": ratio(correct, reached),
                "average_precision": average_precision(*curves[label]),
            }
        )
    return pd.DataFrame(rows).set_index("label") if rows else pd.DataFrame()


def label_names(*sides: Side) -> list[str]:
    """Labels of any of these objects, sorted."""
    return sorted({str(label) for side in sides for label in side.labels if label is not None})


def class_curve(label: str | None, truth: Side, found: Side, pairs: Pairs, iou: float) -> Curve:
    """The predictions of a label against its objects.

    Matched by score within the label, as COCO does; over all labels where it is None.
    """
    assert found.scores is not None
    if label is None:
        return match_by_score(pairs, found.scores, iou) >= 0, found.scores, len(truth)
    mine, said = truth.labels == label, found.labels == label
    same = pairs.where(mine[pairs.truth] & said[pairs.found])
    hit = match_by_score(same, found.scores, iou) >= 0
    return hit[said], found.scores[said], int(mine.sum())


def curve_table(
    correct: NDArray[np.bool_], scores: NDArray[np.float64], truths: int
) -> pd.DataFrame:
    """Score, precision and recall of all predictions from that score on."""
    score, precision, recall = precision_recall(correct, scores, truths)
    return pd.DataFrame({"score": score, "precision": precision, "recall": recall})


def per_image(matching: Matching, images: tuple[str, ...]) -> pd.DataFrame:
    """A row for each image, those without objects included."""
    truth, found, hits = matching.truth, matching.found, matching.hits

    def count(image: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(image, minlength=len(images))

    truths, predictions = count(truth.image), count(found.image)
    matches, correct = count(found.image[hits]), count(found.image[matching.same])
    with np.errstate(invalid="ignore"):
        table = {
            "truths": truths,
            "predictions": predictions,
            "matches": matches,
            "correct": correct,
            "misclassified": matches - correct,
            "missed": truths - matches,
            "false_positives": predictions - matches,
            "precision": matches / predictions,
            "recall": matches / truths,
            "f1": 2 * matches / (predictions + truths),
            "count_error": predictions - truths,
        }
    return pd.DataFrame(table, index=pd.Index(images, name="image_path"))


def confusion(matching: Matching, column: str) -> pd.DataFrame:
    """How often each true label (rows) was given each predicted one (columns).

    Row ``(none)`` holds predictions that match no object, column ``(none)`` objects that were
    missed.
    """
    hits, truth = matching.hits, matching.truth
    said = matching.found.rows[column].astype(object)
    predicted = said.where(said.notna(), NONE).astype(str).to_numpy(object)
    true = _pick(truth.labels, matching.matched)
    true = np.array([NONE if label is None else label for label in true], object)
    missed = truth.labels[~matching.located]
    missed = np.array([NONE if label is None else label for label in missed], object)
    rows = [*sorted({*true[hits], *missed} - {NONE}), NONE]
    columns = [*sorted({*predicted} - {NONE}), NONE]
    table = pd.crosstab(
        np.concatenate([true, missed]),
        np.concatenate([predicted, np.full(len(missed), NONE, object)]),
        dropna=False,
    )
    table = table.reindex(index=rows, columns=columns, fill_value=0)
    return table.rename_axis(index="true", columns="predicted")


def crop_columns(frame: pd.DataFrame) -> list[str]:
    """Columns with the labels of crop models: ``N_label`` that stand beside ``N_score``."""
    stems = [name.removesuffix("_label") for name in frame.columns if str(name).endswith("_label")]
    return [f"{stem}_label" for stem in stems if f"{stem}_score" in frame.columns]


def coco_groups(compared: Compared, pairs: Pairs, most: int = 500) -> tuple[NDArray, NDArray]:
    """Groups in which COCO's dense matching is done, for labelled objects and predictions.

    An image is a group. One with more than `most` objects (a whole map, for instance) is taken
    apart into clusters that no overlap connects: COCO's result is the same, without a matrix of all
    against all.
    """
    truth, found = compared.truth.image, compared.found.image
    sizes = np.bincount(np.concatenate([truth, found]), minlength=len(compared.images))
    if sizes.max(initial=0) <= most:
        return truth, found
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    side = len(truth) + len(found)
    linked = (np.ones(len(pairs.truth)), (pairs.truth, len(truth) + pairs.found))
    _, cluster = connected_components(csr_array(linked, shape=(side, side)), directed=False)
    # Clusters are numbered by their first member, so their images rise: gather neighbours.
    members = np.bincount(cluster)
    bundle = np.cumsum(members) // most
    image_of_cluster = np.zeros(len(members), np.int64)
    image_of_cluster[cluster] = np.concatenate([truth, found])
    _, group = np.unique(np.stack([image_of_cluster, bundle], axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)[cluster]
    return group[: len(truth)], group[len(truth) :]


def _take(values: NDArray, index: NDArray[np.int64], without: float) -> NDArray:
    """`values[index]`, and `without` where an index is -1."""
    taken = np.full(len(index), without, values.dtype)
    taken[index >= 0] = values[index[index >= 0]]
    return taken


def _pick(values: NDArray[np.object_], index: NDArray[np.int64]) -> NDArray[np.object_]:
    """`values[index]`, None where an index is -1."""
    picked = np.full(len(index), None, object)
    picked[index >= 0] = values[index[index >= 0]]
    return picked
