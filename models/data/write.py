"""Annotation frames to files that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import AnnotationError, OutputError
from .frame import BOX, boxes_of, is_negative
from .headers import image_header, image_location

if TYPE_CHECKING:
    import pandas as pd


def write_annotations(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write an annotation frame as CSV (DeepForest's) or COCO JSON, by the suffix of `path`.

    Image paths are written as they are, so relative ones stay relative to the frame's ``root_dir``:
    pass that to whoever reads the file, unless the file lies there.

    Parameters
    ----------
    frame
        As `read_annotations` returns it.
    path
        ``….csv`` or ``….json``. An existing file is replaced.

    Returns
    -------
    Path
        `path`.

    Notes
    -----
    In CSV, a negative is a row of zeros. DeepForest wants a label there, too, so it gets the first of
    the frame's labels; `read_annotations` does not take it for one. Further columns are written to
    CSV, and left out of COCO.

    Raises
    ------
    AnnotationError
        For another suffix, or a frame that lacks a column.
    RasterError
        For COCO, which holds the images' sizes, if an image can't be opened.
    OutputError
        If the file can't be written.
    """
    path = Path(path)
    missing = [name for name in ("image_path", *BOX, "label") if name not in frame]
    if missing:
        raise AnnotationError(f"The frame has no column {missing[0]!r}, which annotations need.")
    if path.suffix.lower() == ".csv":
        text = _csv(frame)
    elif path.suffix.lower() == ".json":
        text = json.dumps(_coco(frame), indent=1)
    else:
        raise AnnotationError(f"{path} has no known suffix; write .csv, or .json for COCO.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error}.") from error
    return path


def _csv(frame: pd.DataFrame) -> str:
    import pandas as pd

    table = pd.DataFrame(frame.drop(columns="geometry", errors="ignore"))
    negative = is_negative(frame)
    named = sorted(set(table["label"].dropna()))
    table["label"] = table["label"].astype(object)
    table.loc[negative, "label"] = named[0] if named else None
    return table.to_csv(index=False, lineterminator="\n")


def _coco(frame: pd.DataFrame) -> dict[str, Any]:
    root = frame.attrs.get("root_dir", ".")
    names = list(dict.fromkeys(str(path) for path in frame["image_path"]))
    images = []
    for number, name in enumerate(names, start=1):
        header = image_header(image_location(root, name))
        size = {"width": header.width, "height": header.height}
        images.append({"id": number, "file_name": name, **size})
    image_id = {name: number for number, name in enumerate(names, start=1)}
    labels = sorted(set(frame["label"].dropna()))
    category_id = {label: number for number, label in enumerate(labels, start=1)}
    rows = np.flatnonzero(~is_negative(frame))
    boxes = boxes_of(frame)[rows].tolist()
    annotations = [
        {
            "id": number,
            "image_id": image_id[str(frame["image_path"].iloc[row])],
            "category_id": category_id[frame["label"].iloc[row]],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            # DeepForest reads the outline only.
            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            "iscrowd": 0,
        }
        for number, (row, (x0, y0, x1, y1)) in enumerate(zip(rows, boxes, strict=True), start=1)
    ]
    categories = [{"id": number, "name": label} for label, number in category_id.items()]
    return {"images": images, "categories": categories, "annotations": annotations}
