"""A real tile and its mirror images as one large raster."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geosweep.models._annotations import deepforest_data

TILE = "2019_YELL_2_528000_4978000_image_crop2.png"
_BLOCK = 512


def write_mirrored(path: Path, width: int, height: int, **options: Any) -> Path:
    """Write a tiled GeoTIFF of the tile's top left pixels, mirrored where it ends.

    Parameters
    ----------
    path
        File to write; deflate unless `options` name another ``compress``.
    width, height
        Its size in pixels.
    options
        For `rasterio.open`, for example a transform and a CRS, or another ``photometric`` than RGB.
    """
    # The tile's pixels are all that counts.
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with rasterio.open(deepforest_data() / TILE) as source:
        pixels = source.read([1, 2, 3])
    rows, columns = (
        np.pad(np.arange(min(have, want)), (0, max(0, want - have)), mode="symmetric")
        for have, want in zip(pixels.shape[1:], (height, width), strict=True)
    )
    layout = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "deflate"}
    layout["photometric"] = "rgb"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        **{**layout, **options},
    ) as target:
        for top in range(0, height, _BLOCK):
            some = rows[top : top + _BLOCK]
            window = ((top, top + len(some)), (0, width))
            target.write(pixels[:, some][:, :, columns], window=window)
    return path
