"""Real rasters and real STAC items."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine

UTM = Affine(10, 0, 500000, 0, -10, 4900000)
WHEN = datetime(2022, 6, 1, 12, tzinfo=UTC)


def make_raster(
    path: Path, *, crs: Any = "EPSG:32612", transform: Affine = UTM, size=(64, 48), **kw
):
    """Write a small 3-band raster of (height, width) = `size`; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = kw.pop("tags", {})
    height, width = size
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", **kw}
    with rasterio.open(
        path, "w", height=height, width=width, crs=crs, transform=transform, **profile
    ) as raster:
        raster.write(np.arange(3 * height * width).reshape(3, height, width).astype("uint8"))
        raster.update_tags(**tags)
    return path


def make_item(item_id: str, href: str, *, west: float = -111.0, when=WHEN, collection="c", **asset):
    """A STAC item made by pystac, one degree wide from `west`, with complete `proj:*`.

    Of servers that don't exist it says when the data was updated, so that nobody looks for them.
    """
    known = {"updated": "2022-06-02T00:00:00Z"} if ".invalid/" in href else {}
    item = pystac.Item(
        id=item_id,
        geometry={
            "type": "Polygon",
            "coordinates": [
                [[west, 44], [west + 1, 44], [west + 1, 45], [west, 45], [west, 44]],
            ],
        },
        bbox=[west, 44, west + 1, 45],
        datetime=when,
        properties={
            "proj:code": "EPSG:32612",
            "proj:transform": [10, 0, 500000, 0, -10, 4900000],
            "proj:shape": [64, 48],
            **known,
        },
        collection=collection,
    )
    media = pystac.MediaType.COG
    item.add_asset(
        "image", pystac.Asset(href, media_type=media, roles=["data"], extra_fields=asset)
    )
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def feature_collection(*items: dict) -> dict:
    return {"type": "FeatureCollection", "features": list(items)}
