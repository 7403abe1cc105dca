"""Painted scenes with known answers, and jobs over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.transform import from_origin

from geosweep.pipeline import Job
from tests.detectors import grey, paint_patches
from tests.rasters import write_raster

WIDTH, HEIGHT = 1300, 1000


def painted_scene(
    folder: Path,
    number: int,
    *,
    poison: bool = False,
    glut: bool = False,
    step_m: float = 200.0,
) -> Path:
    """A COG with 40 red and 14 blue patches; others of 10 px for models that can't stand them."""
    rng = np.random.default_rng(number)
    data = grey(HEIGHT, WIDTH, number)
    # On a lattice, so that patches never touch and each is one object.
    cells = rng.permutation([(x, y) for x in range(10, 1150, 140) for y in range(10, 850, 140)])
    for place, (x, y) in enumerate(cells):
        wide, high = rng.integers(8, 125, 2)
        colour = "blue" if place >= 40 else "red"
        paint_patches(data, [(x, y, x + wide, y + high)], colour)
    for colour, wanted in (("poison", poison), ("glut", glut)):
        if wanted:
            paint_patches(data, [(700, 985, 710, 995)], colour)
    return write_raster(
        folder / f"scene{number}.tif",
        data,
        driver="COG",
        compress="DEFLATE",
        blocksize=256,
        transform=from_origin(500_000 + number * step_m, 4_978_000, 0.1, 0.1),
    )


def job_over(
    rasters: list[Path], output: Path, *, detector: str | dict[str, Any] = "paint", **blocks: Any
) -> Job:
    """A job over plain rasters with one of `tests.detectors`, or with a whole block for another."""
    return Job.from_dict(
        {
            "name": "test",
            "source": {"rasters": [str(path) for path in rasters]},
            "detector": {"model": f"tests.detectors:{detector}"}
            if isinstance(detector, str)
            else detector,
            "output": {"path": str(output)},
            **blocks,
        }
    )


def stac_items(path: Path, items: dict[str, dict[str, Path]]) -> Path:
    """A file of STAC items by id, with the hrefs of their assets."""
    features = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "geometry": None,
            "properties": {"datetime": "2022-07-01T00:00:00Z"},
            "links": [],
            "assets": {key: {"href": str(href)} for key, href in assets.items()},
        }
        for name, assets in items.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def assert_sums(counts: dict[str, int]) -> None:
    """Every scene and window of a plan ends counted."""
    assert counts["scenes"] == counts["succeeded"] + counts["empty"] + counts["failed"]
    assert counts["unfinished"] == 0
    assert counts["windows"] == sum(
        counts[f"windows_{end}"]
        for end in (
            "processed",
            "skipped_nodata",
            "skipped_aoi",
            "skipped_owned",
            "skipped_filter",
            "failed",
        )
    )
    assert counts["detections"] == (
        counts["detections_raw"] - counts["detections_outside_aoi"] - counts["duplicates_removed"]
    )
