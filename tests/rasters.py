"""Small rasters made on the spot, in all the layouts that users bring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine, from_origin

UTM = "EPSG:32612"


def textured(height: int, width: int, count: int = 3, seed: int = 0) -> np.ndarray:
    """(count, height, width) uint8: smooth colour with grain, so that JPEG behaves and rows differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, height // 16 + 2, width // 16 + 2)).astype(np.uint8)
    image = np.kron(coarse, np.ones((1, 16, 16), np.uint8))[:, :height, :width]
    return np.clip(image + rng.integers(-8, 8, image.shape), 0, 255).astype(np.uint8)


def write_raster(
    path: Path,
    data: np.ndarray,
    *,
    crs: str | None = UTM,
    transform: Affine | None = None,
    driver: str = "GTiff",
    **profile: object,
) -> Path:
    """Write (count, height, width) and give the path back."""
    if transform is None and crs is not None:
        transform = from_origin(500_000, 4_978_000, 0.1, 0.1)
    options = {"crs": crs} | ({"transform": transform} if transform is not None else {})
    count, height, width = data.shape
    with rasterio.open(
        path,
        "w",
        driver=driver,
        width=width,
        height=height,
        count=count,
        dtype=data.dtype,
        **options,
        **profile,
    ) as dataset:
        dataset.write(data)
    return path


LAYOUTS: dict[str, dict[str, object]] = {
    "cog-deflate": {"driver": "COG", "compress": "DEFLATE", "blocksize": 256},
    "cog-jpeg": {"driver": "COG", "compress": "JPEG", "blocksize": 512},
    "tiled-jpeg": {
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "JPEG",
        "photometric": "YCBCR",
    },
    "striped-lzw": {"compress": "LZW", "tiled": False},
    "band-interleaved": {"compress": "ZSTD", "interleave": "band", "tiled": False},
    "one-strip": {"compress": "DEFLATE", "tiled": False, "blockysize": 777},
    "png": {"driver": "PNG", "crs": None},
}
