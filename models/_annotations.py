"""Labelled images for training: Pascal VOC XML and DeepForest-style CSV into arrays."""

from __future__ import annotations

import csv
import importlib.util
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..catalog.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image held in memory with its boxes.

    Parameters
    ----------
    name
        File name.
    pixels
        uint8 (3, H, W), RGB.
    boxes
        float32 (N, 4): xmin, ymin, xmax, ymax in pixels.
    labels
        The N label names.
    """

    name: str
    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]

    def rows(self, start: int, stop: int, *, min_visible: float = 0.25) -> LabelledImage:
        """Cut out the rows from `start` to `stop`, keeping boxes of which enough is inside."""
        low = np.array([0, start, 0, start], np.float32)
        boxes = np.clip(self.boxes - low, 0, [self.pixels.shape[2], stop - start] * 2)
        area = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        inside = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        keep = inside >= min_visible * area
        labels = tuple(name for name, kept in zip(self.labels, keep, strict=True) if kept)
        name = f"{self.name}[{start}:{stop}]"
        return LabelledImage(
            name, self.pixels[:, start:stop], boxes[keep].astype(np.float32), labels
        )


def read_voc(path: str | Path) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Read boxes (N, 4) and label names from a Pascal VOC XML file."""
    try:
        objects = list(ET.parse(path).getroot().iter("object"))
    except (OSError, ET.ParseError) as error:
        raise ModelError(f"{path}: not a readable Pascal VOC XML file ({error}).") from error
    boxes = np.zeros((len(objects), 4), np.float32)
    labels = []
    for i, item in enumerate(objects):
        values = [item.findtext(f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")]
        name = item.findtext("name")
        if name is None or None in values:
            raise ModelError(f"{path}: object {i} lacks its name or a corner of its bndbox.")
        boxes[i] = [float(v) for v in values if v is not None]
        labels.append(name)
    return boxes, tuple(labels)


def read_csv(
    path: str | Path, image: str | None = None
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Read boxes (N, 4) and label names from a CSV (image_path, xmin, ymin, xmax, ymax, label).

    Parameters
    ----------
    path
        The file.
    image
        Only rows with this ``image_path``; all rows if None.
    """
    with Path(path).open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if image is None or r["image_path"] == image]
    try:
        boxes = [[float(r[k]) for k in ("xmin", "ymin", "xmax", "ymax")] for r in rows]
        labels = tuple(r["label"] for r in rows)
    except (KeyError, ValueError) as error:
        message = f"{path}: needs the columns xmin, ymin, xmax, ymax and label ({error!r})."
        raise ModelError(message) from error
    return np.array(boxes, np.float32).reshape(-1, 4), labels


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read the first three bands of an 8-bit raster as uint8 (3, H, W)."""
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(path) as source:
            if source.count < 3 or source.dtypes[0] != "uint8":
                raise ModelError(
                    f"{path}: training needs 8-bit RGB, this has {source.count} band(s) of "
                    f"{source.dtypes[0]}."
                )
            return source.read((1, 2, 3))
    except RasterioIOError as error:
        raise ModelError(f"{path}: can't be read as an image ({error}).") from error


def load_labelled(image: str | Path, annotations: str | Path) -> LabelledImage:
    """Load an image with its ``.xml`` or ``.csv`` annotations."""
    image = Path(image)
    if Path(annotations).suffix == ".csv":
        boxes, labels = read_csv(annotations, image.name)
    else:
        boxes, labels = read_voc(annotations)
    return LabelledImage(image.name, read_image(image), boxes, labels)


def deepforest_data() -> Path:
    """Return the folder of labelled imagery in the ``deepforest`` wheel, which is not imported."""
    spec = importlib.util.find_spec("deepforest")
    if spec is None or spec.origin is None:
        raise ModelError(
            "The labelled imagery comes with the package deepforest, which is not installed: "
            "run `pip install --no-deps deepforest==2.1.0`."
        )
    return Path(spec.origin).parent / "data"
