"""Labelled boxes from wherever they are, chosen and split for the training of crop models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...catalog.errors import AnnotationError
from .frame import BOX, is_negative

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def labelled_boxes(
    source: pd.DataFrame | str | Path,
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
        `read_annotations`, `predict_tile` and `Result.to_geopandas`; an annotation file that
        `read_annotations` reads; or the folder of a geosweep output.
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
        path: path if root is None or "://" in path else str(Path(root) / path)
        for path in map(str, frame["image_path"].unique())
    }
    return [paths[str(path)] for path in frame["image_path"]]


def _read(source: pd.DataFrame | str | Path, root_dir: str | Path | None) -> pd.DataFrame:
    if not isinstance(source, (str, Path)):
        return source
    if "://" in str(source):
        raise AnnotationError(
            f"{source}: is not on a local disk; read it with Result.to_geopandas or geopandas and "
            "give the frame."
        )
    if (Path(source) / "items").is_dir():
        return _read_output(Path(source))
    from .annotations import read_annotations

    return read_annotations(source, root_dir=root_dir)


def _read_output(folder: Path) -> pd.DataFrame:
    """Read the rows that the items of an output point to, without their geometry."""
    import pandas as pd
    import pyarrow.parquet as pq

    parts = []
    for item in sorted((folder / "items").glob("*.json")):
        assets = json.loads(item.read_text(encoding="utf-8")).get("assets", {})
        for asset in assets.values():
            if "data" in asset.get("roles", ()):
                file = (item.parent / asset["href"]).resolve()
                names = [n for n in pq.read_schema(file).names if n not in ("geometry", "bbox")]
                parts.append(pq.read_table(file, columns=names).to_pandas())
    if not parts:
        raise AnnotationError(f"{folder}: this output has no detections.")
    return pd.concat(parts, ignore_index=True)


def sample_per_class(
    frame: pd.DataFrame, per_class: int | Literal["min"] | None, seed: int = 0
) -> pd.DataFrame:
    """Keep at most `per_class` random rows of each label; ``min``: as many as the rarest has."""
    if per_class is None or len(frame) == 0:
        return frame
    if per_class == "min":
        per_class = int(frame["label"].value_counts().min())
    if not isinstance(per_class, int) or per_class < 1:
        raise AnnotationError(f"per_class is {per_class!r}: give a number from 1, 'min' or None.")
    kept = [rows[:per_class] for rows in _shuffled(frame, seed)]
    return frame.iloc[np.sort(np.concatenate(kept))]


def split_by_class(
    frame: pd.DataFrame, share: float, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out a share of each label's rows at random.

    Each label of two rows or more keeps at least one on either side. Objects that lie side by side
    look alike: for an honest figure validate on other images instead.

    Returns
    -------
    tuple of DataFrame
        The rest, and what is held out.
    """
    if not 0 < share < 1:
        raise AnnotationError(f"val_share is {share}: give a number between 0 and 1.")
    held: list[NDArray[Any]] = [np.zeros(0, np.int64)]
    for rows in _shuffled(frame, seed):
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held.append(rows[:count])
    mask = np.zeros(len(frame), bool)
    mask[np.concatenate(held)] = True
    return frame.iloc[np.flatnonzero(~mask)], frame.iloc[np.flatnonzero(mask)]


def _shuffled(frame: pd.DataFrame, seed: int) -> list[NDArray[np.int64]]:
    """Row numbers of each label in random order; a label's do not depend on the other labels."""
    labels = frame["label"].to_numpy()
    return [
        np.random.default_rng([seed, *label.encode()]).permutation(np.flatnonzero(labels == label))
        for label in sorted(set(labels))
    ]
