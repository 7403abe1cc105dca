"""Pascal VOC XML: one file for each image."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

import numpy as np

from ...catalog.errors import AnnotationError
from ._raw import RawRows, raw_table
from .frame import BOX


def read_voc(path: Path, root: str) -> RawRows:
    """Read a VOC file; one without objects is a negative image.

    Coordinates are taken as they stand, neither rounded nor moved by the pixel at which some tools
    start to count.
    """
    try:
        tree = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise AnnotationError(
            f"{path} is not a readable Pascal VOC XML file ({error}); mend it or leave it out."
        ) from error
    if tree.tag != "annotation":
        raise AnnotationError(
            f"{path} is not Pascal VOC: its root is <{tree.tag}>, not <annotation>; leave it out."
        )
    # Windows tools write backslashes, and some write the labeller's own folders.
    name = PurePosixPath((tree.findtext("filename") or "").strip().replace("\\", "/")).name
    if not name:
        raise AnnotationError(f"{path} has no <filename>: add it, since it names the image.")
    objects = list(tree.iter("object"))
    if not objects:
        return RawRows(str(path), root, "object", raw_table([1], [name], np.zeros(4), [None]))
    boxes = np.full((len(objects), 4), np.nan)
    why: list[str | None] = [None] * len(objects)
    labels: list[str | None] = []
    for i, item in enumerate(objects):
        labels.append((item.findtext("name") or "").strip() or None)
        for j, key in enumerate(BOX):
            text = item.findtext(f"bndbox/{key}")
            try:
                boxes[i, j] = float(text or "")
            except ValueError:
                found = "missing" if text is None else f"{text.strip()!r}, not a number"
                why[i] = why[i] or f"its {key} is {found}"
    rows = np.arange(len(objects)) + 1
    table = raw_table(rows, [name] * len(objects), boxes, labels, why=why)
    return RawRows(str(path), root, "object", table)
