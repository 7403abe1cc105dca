"""Training and validation on different ground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import shapely

from ...catalog.errors import AnnotationError
from ._grouping import boxed_images, sorted_labels
from ._reader import RasterReader
from .config import Rectangle, WindowConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from shapely.geometry.base import BaseGeometry

    from ._grouping import BoxedImage
    from ._rasterinfo import RasterInfo

BLOCK_WINDOWS = 3
"""Side of a block, in windows: larger ones cut fewer objects at their borders, smaller ones mix
training and validation better."""


class Part(NamedTuple):
    """Annotations, and the rectangles (x0, y0, x1, y1) of each image to use; None for all of it."""

    frame: pd.DataFrame
    regions: Mapping[str, Sequence[Rectangle]] | None


class _Unit(NamedTuple):
    """Ground that is not divided: parts of images, and how many boxes have their centre there."""

    parts: list[tuple[str, Rectangle]]
    boxes: int


def split_annotations(
    frame: pd.DataFrame,
    share: float,
    *,
    by: Literal["image", "block"] = "image",
    windows: WindowConfig | None = None,
    seed: int = 0,
    root_dir: str | None = None,
    reader: RasterReader | None = None,
) -> tuple[Part, Part]:
    """Hold out about a share of the boxes, on ground that the rest does not see.

    Images that overlap on the map go to the same side.

    Parameters
    ----------
    frame
        Annotations.
    share
        Of the boxes to hold out, above 0 and below 1.
    by
        ``image``: whole images. ``block``: images are divided into blocks, some windows wide, and
        no window crosses the border of its block; small images, and images that overlap others,
        stay whole.
    windows
        Size and resolution of the windows, which the size of blocks follows.
    seed
        Chooses what is held out.
    root_dir, reader
        As for `WindowDataset`.

    Returns
    -------
    tuple of Part
        What to train on and what is held out.

    Raises
    ------
    AnnotationError
        If there is nothing to divide.
    """
    windows = windows or WindowConfig()
    reader = reader or RasterReader.of(windows)
    images = boxed_images(frame, sorted_labels(frame), root_dir)
    infos = [reader.describe(image.file) for image in images]
    units: list[_Unit] = []
    for group in _on_the_same_ground(infos):
        if by == "block" and len(group) == 1 and windows.size is not None:
            units += _blocks(images[group[0]], infos[group[0]], windows.size)
        else:
            parts = [(images[i].path, _whole(infos[i])) for i in group]
            units.append(_Unit(parts, sum(len(images[i].boxes) for i in group)))
    if len(units) < 2:
        hint = "split_by: block, or annotations to validate on" if by == "image" else "those"
        raise AnnotationError(
            f"A share of {share:g} can't be held out: the annotations have one "
            f"{'image (or images of the same ground)' if by == 'image' else 'block of ground'} "
            f"only; give {hint if by == 'image' else 'annotations to validate on'}."
        )
    held = _choose(units, share, seed)
    chosen = set(held.tolist())
    return (
        _part(frame, [unit for i, unit in enumerate(units) if i not in chosen]),
        _part(frame, [unit for i, unit in enumerate(units) if i in chosen]),
    )


def image_in_both(train: Part, val: Part) -> str | None:
    """Return an `image_path` of which both parts have some of the same pixels, None if there is none."""
    for path in sorted(set(train.frame["image_path"]) & set(val.frame["image_path"])):
        if _outline(train, path).intersection(_outline(val, path)).area > 0:
            return path
    return None


def _outline(part: Part, path: str) -> BaseGeometry:
    everywhere = [(-1e9, -1e9, 1e9, 1e9)]
    rectangles = (part.regions or {}).get(path, everywhere)
    return shapely.unary_union([shapely.box(*rectangle) for rectangle in rectangles])


def _choose(units: list[_Unit], share: float, seed: int) -> np.ndarray:
    """The first few of the shuffled units, as many as come closest to the share, at least one."""
    order = np.random.default_rng(seed).permutation(len(units))
    # An image without boxes counts a little, so that negatives alone can be divided, too.
    weights = np.array([unit.boxes + 1e-3 for unit in units])[order]
    reached = np.cumsum(weights)[:-1] / weights.sum()
    return order[: int(np.argmin(np.abs(reached - share))) + 1]


def _part(frame: pd.DataFrame, units: list[_Unit]) -> Part:
    regions: dict[str, list[Rectangle]] = {}
    for unit in units:
        for path, rectangle in unit.parts:
            regions.setdefault(path, []).append(rectangle)
    return Part(frame.loc[frame["image_path"].isin(list(regions)), :], regions)


def _whole(info: RasterInfo) -> Rectangle:
    return (0, 0, info.full_width, info.full_height)


def _blocks(image: BoxedImage, info: RasterInfo, size: int) -> list[_Unit]:
    x_factor, y_factor = info.factors[:2]
    side = BLOCK_WINDOWS * size * info.scale
    xs = _borders(info.full_width, side * x_factor)
    ys = _borders(info.full_height, side * y_factor)
    centres = (image.boxes[:, :2] + image.boxes[:, 2:]) / 2
    counts = np.histogram2d(centres[:, 1], centres[:, 0], bins=(ys, xs))[0].astype(int)
    return [
        _Unit([(image.path, (xs[c], ys[r], xs[c + 1], ys[r + 1]))], int(counts[r, c]))
        for r in range(len(ys) - 1)
        for c in range(len(xs) - 1)
    ]


def _borders(length: int, side: float) -> list[int]:
    count = max(1, round(length / side))
    return [round(length * i / count) for i in range(count + 1)]


def _on_the_same_ground(infos: Sequence[RasterInfo]) -> list[list[int]]:
    """Numbers of images, those together that overlap on the map directly or through others."""
    leader = list(range(len(infos)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    located = [i for i, info in enumerate(infos) if info.footprint is not None]
    west, south, east, north = np.array([infos[i].footprint for i in located]).reshape(-1, 4).T
    outlines = shapely.box(west, south, east, north)
    # Neighbours that only touch see different ground: rounding may let them overlap by a hair.
    shrunk = shapely.buffer(outlines, -1e-7)
    for a, b in shapely.STRtree(shrunk).query(shrunk, predicate="intersects").T:
        leader[find(located[a])] = find(located[b])
    groups: dict[int, list[int]] = {}
    for i in range(len(infos)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())
