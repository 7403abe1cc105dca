"""Small labelled images whole in memory, for demos and measurements; and where such imagery is."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog.errors import AnnotationError, ModelError
from .data import read_annotations
from .data.headers import open_image

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


def load_labelled(image: str | Path, annotations: str | Path) -> LabelledImage:
    """Load an 8-bit RGB image with its rows of an annotation file.

    Raises
    ------
    AnnotationError
        If the annotations can't be used or are about other images, or the image is not 8-bit RGB.
    """
    image = Path(image)
    frame: Any = read_annotations(annotations, root_dir=image.parent)
    of_image = frame["image_path"] == image.name
    if len(frame) and not of_image.any():
        raise AnnotationError(
            f"{annotations}: no row is about {image.name}, but about {frame['image_path'].iloc[0]}."
        )
    frame = frame[of_image & frame["label"].notna()]
    with open_image(str(image)) as source:
        if source.count < 3 or source.dtypes[0] != "uint8":
            raise AnnotationError(
                f"{image}: 8-bit RGB is needed, this has {source.count} band(s) of {source.dtypes[0]}."
            )
        pixels = source.read((1, 2, 3))
    boxes = frame[["xmin", "ymin", "xmax", "ymax"]].to_numpy(np.float32)
    return LabelledImage(image.name, pixels, boxes, tuple(frame["label"]))


def deepforest_data() -> Path:
    """Return the folder of labelled imagery in the ``deepforest`` wheel, which is not imported."""
    spec = importlib.util.find_spec("deepforest")
    if spec is None or spec.origin is None:
        raise ModelError(
            "The labelled imagery comes with the package deepforest, which is not installed: "
            "run `pip install --no-deps deepforest==2.1.0`."
        )
    return Path(spec.origin).parent / "data"
