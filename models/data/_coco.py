"""COCO JSON: boxes, or the bounds of segmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import AnnotationError
from ._raw import RawRows, ReadOptions, raw_table

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def is_coco(content: Any) -> bool:
    """Whether a JSON document is COCO."""
    return isinstance(content, dict) and {"images", "annotations"} <= set(content)


def read_coco(
    path: Path, content: dict[str, Any], root: str, options: ReadOptions
) -> list[RawRows]:
    """Read a COCO document; images without annotations are negatives.

    Crowd regions (``iscrowd``) are left out: they are no objects.
    """
    try:
        images = {image["id"]: str(image["file_name"]) for image in content["images"]}
        names = {item["id"]: str(item["name"]) for item in content.get("categories", [])}
    except (KeyError, TypeError) as error:
        raise AnnotationError(
            f"{path} is not COCO: each image needs id and file_name, each category id and name "
            f"({error!r})."
        ) from error
    objects = [item for item in content["annotations"] if not item.get("iscrowd")]
    crowds = len(content["annotations"]) - len(objects)
    boxes = np.full((len(objects), 4), np.nan)
    why: list[str | None] = []
    paths: list[str | None] = []
    labels: list[str | None] = []
    for i, item in enumerate(objects):
        image, category = item.get("image_id"), item.get("category_id")
        boxes[i], problem = _box(item)
        if image not in images:
            problem = f"its image_id {image!r} is none of the file's images"
        elif category not in names and options.label is None:
            problem = f"its category_id {category!r} is none of the file's categories"
        why.append(problem)
        paths.append(images.get(image, ""))
        labels.append(names.get(category))
    seen = {item.get("image_id") for item in content["annotations"]}
    empty = {key: name for key, name in images.items() if key not in seen}
    numbers = [_number(item.get("id"), i) for i, item in enumerate(objects)]
    boxed = raw_table(numbers, paths, boxes, labels, why=why, relative=options.normalized)
    negative = raw_table(
        [_number(key, i) for i, key in enumerate(empty)],
        list(empty.values()),
        np.zeros((len(empty), 4)),
        [None] * len(empty),
    )
    skipped = [f"{crowds} crowd region(s), which are no objects"] if crowds else []
    return [
        RawRows(str(path), root, "annotation", boxed, skipped),
        RawRows(str(path), root, "image", negative),
    ]


def _number(given: Any, position: int) -> int:
    return given if isinstance(given, int) else position


def _box(item: dict[str, Any]) -> tuple[NDArray[np.float64], str | None]:
    """Corners of an annotation, and what is wrong with it."""
    bbox, outline = item.get("bbox"), item.get("segmentation")
    try:
        if bbox:
            x, y, width, height = (float(value) for value in bbox)
            return np.array([x, y, x + width, y + height]), None
        if isinstance(outline, list) and outline:
            points = np.concatenate(
                [np.asarray(part, np.float64).reshape(-1, 2) for part in outline]
            )
            return np.concatenate([points.min(axis=0), points.max(axis=0)]), None
    except (TypeError, ValueError):
        return np.full(4, np.nan), f"its bbox {bbox!r} or segmentation is not made of numbers"
    return np.full(4, np.nan), "it has neither bbox nor a polygon as segmentation"
