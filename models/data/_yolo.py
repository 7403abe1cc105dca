"""YOLO text files: one for each image, with fractions of its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...catalog.errors import AnnotationError
from ._raw import RawRows, ReadOptions, raw_table

_LISTS = ("classes.txt", "obj.names", "classes.names")
_YAML = ("data.yaml", "data.yml", "dataset.yaml")
NOT_LABELS = frozenset({*_LISTS, "train.txt", "val.txt", "test.txt", "readme.txt"})
_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".jp2")


def image_folder(folder: Path) -> Path:
    """The images of a folder of labels: ``…/images/…`` beside ``…/labels/…``, else the folder."""
    parts = list(folder.parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "labels":
            beside = Path(*parts[:i], "images", *parts[i + 1 :])
            return beside if beside.is_dir() else folder
    return folder


def read_yolo(path: Path, root: str, options: ReadOptions) -> RawRows:
    """Read a YOLO file; an empty one is a negative image.

    A line is ``class x y width height`` (a sixth number is a score), or ``class x1 y1 x2 y2 x3 y3 …``
    for a polygon, of which the bounds are taken.
    """
    names = _class_names(path.parent, options)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} can't be read as YOLO text ({error}).") from error
    image = options.image_path or _image_of(path, Path(root))
    lost = None if image else f"there is no image {path.stem}.tif, .png, .jpg … in {root}"
    found = [(i + 1, *_parse(line, names)) for i, line in enumerate(lines) if line.strip()]
    if not found:
        return RawRows(
            str(path), root, "line", raw_table([1], [image], np.zeros(4), [None], why=[lost])
        )
    rows, boxes, labels, scores, why = zip(*found, strict=True)
    table = raw_table(
        rows,
        [image] * len(rows),
        np.stack(boxes),
        labels,
        why=[lost or one for one in why],
        relative=True,
    )
    if any(score is not None for score in scores):
        table["score"] = np.array(scores, np.float64)
    return RawRows(str(path), root, "line", table)


def _parse(line: str, names: list[str]) -> tuple[np.ndarray, str | None, float | None, str | None]:
    """Corners as fractions, label, score, and what is wrong with the line."""
    unknown = np.full(4, np.nan)
    try:
        index, *rest = (float(word) for word in line.split())
    except ValueError:
        return unknown, None, None, f"{line.strip()[:40]!r} is not made of numbers"
    label = names[int(index)] if index in range(len(names)) else None
    why = None
    if label is None:
        why = f"its class {index:g} is beyond the {len(names)} class names"
    if len(rest) in (4, 5):
        x, y, width, height = rest[:4]
        corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        return corners, label, rest[4] if len(rest) == 5 else None, why
    if len(rest) < 6 or len(rest) % 2:
        return unknown, label, None, f"it has {len(rest) + 1} numbers, not class x y width height"
    points = np.array(rest).reshape(-1, 2)
    return np.concatenate([points.min(axis=0), points.max(axis=0)]), label, None, why


def _image_of(path: Path, root: Path) -> str | None:
    found = [root / f"{path.stem}{end}" for end in (*_IMAGES, *map(str.upper, _IMAGES))]
    there = [image.name for image in found if image.is_file()]
    if len(there) > 1:
        raise AnnotationError(
            f"{path} may belong to {' and '.join(there)} in {root}; move one of them away."
        )
    return there[0] if there else None


def _class_names(folder: Path, options: ReadOptions) -> list[str]:
    for place in (folder, *list(folder.parents)[:2]):
        for name in _LISTS:
            if (place / name).is_file():
                lines = (place / name).read_text(encoding="utf-8").splitlines()
                return [line.strip() for line in lines if line.strip()]
        for name in _YAML:
            if (place / name).is_file():
                return _names_in_yaml(place / name)
    if options.labels is None:
        raise AnnotationError(
            f"{folder} has no class names (classes.txt or data.yaml): pass labels= in their order."
        )
    return list(options.labels)


def _names_in_yaml(path: Path) -> list[str]:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = content["names"]
        ordered = [names[i] for i in range(len(names))]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"{path} has no usable list `names` of its classes ({error!r}); add it."
        ) from error
    return [str(name) for name in ordered]
