"""A sparse scene out of real imagery, and the ground to train on: there is no sparse image at hand.

The tile 2019_YELL_2_528000 of the `deepforest` wheel is a meadow with woods. Its rows from 900 on are
for training; those above, and the tile 2019_YELL_2_541000 from elsewhere, make the scene, which is
a grid of blocks of 500 px:

- Empty blocks: a random square of 250 px without any labelled box, from the upper rows, with its three
  mirror images, so that there is no seam inside the block. Each is turned or mirrored at random.
- Wooded blocks, 6 %: a random square of 500 px with at least one box, from the upper rows or the other
  tile, with its boxes as far as they are inside; turned or mirrored at random.

So pixels and boxes are real, their arrangement is not: blocks meet in hard edges, ground repeats
itself (all empty squares come from some hectares), and empty ground is as tidy as labels are complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from geosweep.models import read_annotations
from geosweep.models._annotations import deepforest_data

TRAINING, ELSEWHERE = (
    "2019_YELL_2_528000_4978000_image_crop2",
    "2019_YELL_2_541000_4977000_image_crop",
)
ROWS, BLOCK, BLOCKS, WOODED, GSD = 900, 500, 16, 0.06, 0.1
BOX = ["xmin", "ymin", "xmax", "ymax"]


class Ground(NamedTuple):
    """Pixels uint8 (3, H, W) and boxes float64 (N, 4)."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float64]


def ground(name: str) -> Ground:
    """One labelled tile of the wheel."""
    folder = deepforest_data()
    with rasterio.open(folder / f"{name}.png") as source:
        pixels = source.read((1, 2, 3))
    return Ground(pixels, read_annotations(folder / f"{name}.xml")[BOX].to_numpy())


def cut(place: Ground, x: int, y: int, width: int, height: int) -> Ground:
    """A rectangle with the boxes of which a quarter is inside, cut at its border."""
    boxes = place.boxes - [x, y, x, y]
    inside = np.clip(boxes, 0, [width, height] * 2)
    area, left = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, inside))
    return Ground(place.pixels[:, y : y + height, x : x + width], inside[left >= 0.25 * area])


def turned(place: Ground, which: int) -> Ground:
    """One of the eight symmetries of a square."""
    side = place.pixels.shape[1]
    pixels, (x0, y0, x1, y1) = place.pixels, place.boxes.T
    if which & 1:
        pixels, x0, x1 = pixels[:, :, ::-1], side - x1, side - x0
    if which & 2:
        pixels, y0, y1 = pixels[:, ::-1], side - y1, side - y0
    if which & 4:
        pixels, x0, y0, x1, y1 = pixels.transpose(0, 2, 1), y0, x0, y1, x1
    return Ground(pixels, np.stack([x0, y0, x1, y1], axis=1))


def squares(place: Ground, side: int, *, empty: bool, step: int = 10) -> list[tuple[int, int]]:
    """Corners of all squares on a raster of `step` px that touch no box, or hold at least one."""
    height, width = place.pixels.shape[1:]
    found = []
    x0, y0, x1, y1 = place.boxes.T
    for y in range(0, height - side + 1, step):
        for x in range(0, width - side + 1, step):
            touching = ((x0 < x + side) & (x1 > x) & (y0 < y + side) & (y1 > y)).any()
            if empty != touching:
                found.append((x, y))
    return found


def write(path: Path, place: Ground) -> Path:
    """Write a tiled GeoTIFF and beside it a CSV of the boxes, whose path is returned."""
    _, height, width = place.pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
        crs="EPSG:32612", transform=from_origin(500_000, 4_978_000, GSD, GSD),
        tiled=True, compress="deflate",
    ) as target:  # fmt: skip
        target.write(place.pixels)
    table = pd.DataFrame(place.boxes, columns=BOX)
    table.insert(0, "image_path", path.name)
    table["label"] = "Tree"
    table.to_csv(path.with_suffix(".csv"), index=False)
    return path.with_suffix(".csv")


def training_ground() -> Ground:
    """The rows of the tile that the scene does not use."""
    tile = ground(TRAINING)
    height, width = tile.pixels.shape[1:]
    return cut(tile, 0, ROWS, width, height - ROWS)


def sparse_scene(seed: int = 0, blocks: int = BLOCKS) -> tuple[Ground, dict[str, int]]:
    """The scene, and how much real ground is in it."""
    rng = np.random.default_rng(seed)
    tile, other = ground(TRAINING), ground(ELSEWHERE)
    upper = cut(tile, 0, 0, tile.pixels.shape[2], ROWS)
    bare = squares(upper, BLOCK // 2, empty=True)
    woods = [(place, xy) for place in (upper, other) for xy in squares(place, BLOCK, empty=False)]
    side = blocks * BLOCK
    pixels = np.empty((3, side, side), np.uint8)
    boxes = [np.zeros((0, 4))]
    wooded = rng.permutation(blocks * blocks) < round(WOODED * blocks * blocks)
    for i, is_wooded in enumerate(wooded):
        y, x = (int(v) * BLOCK for v in divmod(i, blocks))
        if is_wooded:
            place, corner = woods[rng.integers(len(woods))]
            block = cut(place, *corner, BLOCK, BLOCK)
        else:
            corner = bare[rng.integers(len(bare))]
            quarter = cut(upper, *corner, BLOCK // 2, BLOCK // 2).pixels
            half = np.concatenate([quarter, quarter[:, :, ::-1]], axis=2)
            block = Ground(np.concatenate([half, half[:, ::-1]], axis=1), np.zeros((0, 4)))
        block = turned(block, int(rng.integers(8)))
        pixels[:, y : y + BLOCK, x : x + BLOCK] = block.pixels
        boxes.append(block.boxes + np.array([x, y, x, y]))
    covered = np.zeros(upper.pixels.shape[1:], bool)
    for x, y in bare:
        covered[y : y + BLOCK // 2, x : x + BLOCK // 2] = True
    sources = {"empty_squares": len(bare), "empty_pixels": int(covered.sum())}
    return Ground(pixels, np.concatenate(boxes)), {**sources, "wooded_blocks": int(wooded.sum())}
