"""What an evaluation gives: figures, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How well predictions agree with labels.

    `precision`, `recall` and `f1` speak of places alone: an object that is found under another
    label is not missed but *misclassified*, and counted apart.

    Parameters
    ----------
    iou, score_threshold, matching
        As given to `evaluate`.
    images, empty_images
        How many images are labelled, and how many of these without any object.
    truths, predictions
        Labelled objects; predictions on these images from the score threshold on.
    matched
        Objects found = `correct` + `misclassified`.
    missed, false_positives
        Objects without a match; predictions without one.
    precision, recall, f1
        Over all images together; nan where nothing was predicted or labelled.
    image_precision, image_recall
        Means over the images with objects, which DeepForest calls ``box_precision`` and
        ``box_recall``: an image without predictions has recall 0 and no precision, and predictions
        on images without objects don't count.
    label_accuracy
        `correct` / `matched`.
    average_precision
        At `iou`, whatever the label: area under the precision envelope, of all predictions given.
    coco
        ``map`` over labels and IoU 0.50 to 0.95, ``map_50``, ``map_75`` and ``mar``, by COCO's rules
        but for its limit of 100 predictions; empty if not asked for.
    empty_frame_accuracy
        Share of the images without objects on which nothing was predicted.
    count_bias, count_error
        Mean over images of predictions − truths, and of its absolute value.
    ignored
        Predictions on images that the labels do not name, by image; they count nowhere.
    per_class, per_image
        Frames: the same by label, and by image.
    matches
        A frame with a row for each labelled object, and one for each false prediction: ``outcome``
        (correct, misclassified, missed or false), both labels, score, IoU, the index of both rows in
        the frames given, ``geometry`` and ``predicted_geometry``.
    confusion
        Frames by name: ``label``, and the label column of each crop model. Rows are true labels,
        columns predicted ones; ``(none)`` stands for no object and for no prediction.
    curves
        Frames with ``score``, ``precision`` and ``recall`` by label; ``(all)`` whatever the label.
    root_dir
        Folder of relative image paths, where known; None on the map.
    """

    iou: float
    score_threshold: float
    matching: str
    images: int
    empty_images: int
    truths: int
    predictions: int
    matched: int
    correct: int
    misclassified: int
    missed: int
    false_positives: int
    precision: float
    recall: float
    f1: float
    image_precision: float
    image_recall: float
    label_accuracy: float
    average_precision: float
    coco: Mapping[str, float]
    empty_frame_accuracy: float
    count_bias: float
    count_error: float
    ignored: Mapping[str, int]
    per_class: pd.DataFrame = field(repr=False)
    per_image: pd.DataFrame = field(repr=False)
    matches: gpd.GeoDataFrame = field(repr=False)
    confusion: Mapping[str, pd.DataFrame] = field(repr=False)
    curves: Mapping[str, pd.DataFrame] = field(repr=False)
    root_dir: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON takes them (nan as None); without `matches` and `curves`."""
        frames = {"per_class", "per_image", "matches", "confusion", "curves", "root_dir"}
        names = [f.name for f in fields(self) if f.name not in frames]
        return _plain(
            {
                **{name: getattr(self, name) for name in names},
                "per_class": self.per_class.to_dict("index"),
                "per_image": self.per_image.to_dict("index"),
                "confusion": {k: v.to_dict("index") for k, v in self.confusion.items()},
            }
        )

    def plot(
        self, folder: str | Path, *, image_dir: str | Path | None = None, most_images: int = 20
    ) -> list[Path]:
        """Write pictures: precision over recall, confusion, counts, and the boxes on the images.

        Parameters
        ----------
        folder
            Created where needed.
        image_dir
            Folder of the images; default: the one that the labels came from. Images that are not
            there are left out, with a line in the log.
        most_images
            How many images are drawn: those with the most errors.

        Returns
        -------
        list of Path
            The PNG files.

        Raises
        ------
        OutputError
            If they can't be written, or matplotlib is not installed.
        """
        from ._eval_plots import write_plots

        return write_plots(self, Path(folder), image_dir or self.root_dir, most_images)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
