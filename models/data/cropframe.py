"""Labelled boxes from wherever they are, chosen and split for the training of crop models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...catalog.errors import AnnotationError
from .frame import BOX, is_negative
from .headers import image_location, is_remote

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    BoxSource = pd.DataFrame | str | Path | list[str]


def labelled_boxes(
    source: BoxSource,
    label_column: str = "label",
    *,
    min_score: float | None = None,
    root_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Read boxes with their labels.

    Parameters
    ----------
    source
        A frame with `image_path`, `xmin`, `ymin`, `xmax`, `ymax` and `label_column`, such as those of
        `read_annotations`, `predict_tile` and `Result.to_geopandas`; what `read_annotations` reads;
        or the folder of a geosweep output.
    label_column
        The column that becomes ``label``, such as ``cropmodel_label``.
    min_score
        Leave out rows with a lower ``score``.
    root_dir
        Folder of relative image paths; the frame's own if None.

    Returns
    -------
    DataFrame
        ``image_path`` (where to open it), the box's columns, and ``label`` (str); rows that say that
        an image has no objects are left out.

    Raises
    ------
    AnnotationError
        If it can't be read, lacks a column, or has a box without a label.
    """
    import pandas as pd

    name = "The frame" if isinstance(source, pd.DataFrame) else str(source)
    frame = _read(source, root_dir)
    wanted = ["image_path", *BOX, label_column, *(["score"] if min_score is not None else [])]
    missing = [column for column in wanted if column not in frame.columns]
    if missing:
        raise AnnotationError(
            f"{name} has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}."
        )
    kept = ~(is_negative(frame) & frame[label_column].isna().to_numpy())
    if min_score is not None:
        kept &= frame["score"].to_numpy() >= min_score
    frame = frame.iloc[np.flatnonzero(kept)]
    unlabelled = frame[label_column].isna().to_numpy()
    if unlabelled.any():
        row = frame.iloc[int(np.argmax(unlabelled))]
        raise AnnotationError(
            f"{name}: the box {[float(row[c]) for c in BOX]} of {row['image_path']} has no "
            f"{label_column}; label or drop it."
        )
    return pd.DataFrame(
        {
            "image_path": image_files(frame, root_dir),
            **{column: frame[column].to_numpy(np.float64) for column in BOX},
            "label": [str(label) for label in frame[label_column]],
        }
    )


def image_files(frame: pd.DataFrame, root_dir: str | Path | None = None) -> list[str]:
    """Return for each row where to open its image: relative paths lie in the frame's root folder."""
    root = root_dir or frame.attrs.get("root_dir")
    paths = {
        path: path if root is None else image_location(root, path)
        for path in map(str, frame["image_path"].unique())
    }
    return [paths[str(path)] for path in frame["image_path"]]


def _read(source: BoxSource, root_dir: str | Path | None) -> pd.DataFrame:
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source
    from .annotations import read_annotations

    if isinstance(source, list):
        return read_annotations(source, root_dir=root_dir)
    if is_remote(str(source)):
        raise AnnotationError(
            f"{source}: is not on a local disk; read it with Result.to_geopandas or geopandas and "
            "give the frame."
        )
    if (Path(source) / "items").is_dir():
        return _read_output(Path(source))
    return read_annotations(source, root_dir=root_dir)


def _read_output(folder: Path) -> pd.DataFrame:
    """Read the rows that the items of an output point to, without their geometry."""
    import pandas as pd
    import pyarrow.parquet as pq

    scenes: dict[Path, list[str]] = {}  # compaction lets several items point to one file
    for path in sorted((folder / "items").glob("*.json")):
        item = json.loads(path.read_text(encoding="utf-8"))
        for asset in item.get("assets", {}).values():
            if "data" in asset.get("roles", ()):
                file = (path.parent / asset["href"]).resolve()
                scenes.setdefault(file, []).append(item["id"])
    parts = []
    for file, ids in scenes.items():
        names = [n for n in pq.read_schema(file).names if n not in ("geometry", "bbox")]
        table = pq.read_table(file, columns=names, filters=[("scene_id", "in", ids)])
        parts.append(table.to_pandas())
    if not parts:
        raise AnnotationError(f"{folder}: this output has no detections.")
    return pd.concat(parts, ignore_index=True)


def sample_per_class(
    labels: Sequence[Any], per_class: int | Literal["min"] | None, seed: int = 0
) -> NDArray[np.int64]:
    """Choose at most `per_class` random rows of each label; ``min``: as many as the rarest has.

    Returns
    -------
    NDArray
        Numbers of the chosen rows, in order; all of them if `per_class` is None.
    """
    groups = _shuffled(labels, seed)
    if per_class is None or not groups:
        return np.arange(len(labels))
    if per_class == "min":
        per_class = min(map(len, groups))
    if not isinstance(per_class, int) or per_class < 1:
        raise AnnotationError(f"per_class is {per_class!r}: give a number from 1, 'min' or None.")
    return np.sort(np.concatenate([rows[:per_class] for rows in groups]))


def split_by_class(
    labels: Sequence[Any], share: float, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a share of each label's rows at random.

    Each label of two rows or more has at least one on either side. Objects that lie side by side
    look alike: for an honest figure validate on other images instead.

    Returns
    -------
    tuple of NDArray
        Numbers of the rows that stay, and of those held out, in order.
    """
    if not 0 < share < 1:
        raise AnnotationError(f"The share to hold out is {share}: give a number between 0 and 1.")
    held = np.zeros(len(labels), bool)
    for rows in _shuffled(labels, seed):
        held[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _shuffled(labels: Sequence[Any], seed: int) -> list[NDArray[np.int64]]:
    """Row numbers of each label in random order; a label's do not depend on the other labels."""
    names = np.array([str(label) for label in labels], object)
    return [
        np.random.default_rng([seed, *name.encode()]).permutation(np.flatnonzero(names == name))
        for name in sorted(set(names))
    ]
