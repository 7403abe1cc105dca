"""Overlapping scenes of two UTM zones in one run: each point of the ground has one owner."""

import json

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer

from geosweep.catalog.validate import validate_output
from geosweep.pipeline import Job, run
from geosweep.pipeline.outputs import open_output
from tests.detectors import grey, paint_patches
from tests.rasters import write_raster
from tests.scenes import assert_sums

SIZE = 900
PATCHES = [[x, y, x + 50, y + 40] for x in range(5, 845, 93) for y in range(10, 850, 93)]
BORDER = 40  # pixels that windows share: 200 × 0.2
ZONES = {"s12": "EPSG:32612", "s13": "EPSG:32613"}


def grid_of(crs, lon):
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, 44.2)
    return Affine(0.5, 0, x - SIZE / 4, 0, -0.5, y + SIZE / 4)


GRIDS = {"s12": grid_of("EPSG:32612", -108.0009), "s13": grid_of("EPSG:32613", -107.9991)}


def inside(points, scene, other):
    """How deep points of a scene's pixels lie in another scene, in its pixels; negative outside."""
    to_other = Transformer.from_crs(ZONES[scene], ZONES[other], always_xy=True)
    x, y = ~GRIDS[other] @ to_other.transform(*(GRIDS[scene] @ points.T))
    return np.min([x, y, SIZE - x, SIZE - y], axis=0)


@pytest.mark.parametrize("latest", list(ZONES))
def test_two_zones_share_their_ground(tmp_path, latest):
    features = []
    for name, crs in ZONES.items():
        image = paint_patches(grey(SIZE, SIZE), PATCHES)
        path = write_raster(
            tmp_path / f"{name}.tif", image, driver="COG", crs=crs, transform=GRIDS[name]
        )
        day = 2 if name == latest else 1
        features.append(
            {
                "type": "Feature",
                "id": name,
                "geometry": None,
                "properties": {"datetime": f"2022-01-0{day}T00:00:00Z"},
                "assets": {"image": {"href": str(path)}},
            }
        )
    items = tmp_path / "items.json"
    items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    job = Job.from_dict(
        {
            "source": {"stac": str(items)},
            "windows": {"size": 200, "overlap": 0.2},
            "detector": {"model": "tests.detectors:paint"},
            "output": {"path": str(tmp_path / "out")},
        }
    )
    result = run(job, engine="local", progress=False)
    frame = result.to_geopandas()
    assert_sums(result.counts)
    (older,) = set(ZONES) - {latest}
    middles = np.array([((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in PATCHES])
    rim = np.min([middles, SIZE - middles], axis=(0, 2))
    for scene, other in ((older, latest), (latest, older)):
        rows = frame[frame.scene_id == scene]
        found = rows[["xmin", "ymin", "xmax", "ymax"]].to_numpy().astype(int).tolist()
        depth = inside(middles, scene, other)
        for patch, deep, own in zip(PATCHES, depth, rim, strict=True):
            if min(abs(deep), abs(deep - BORDER), abs(own - BORDER)) < 1:
                continue  # on a line between two owners, which is known to a pixel
            if scene == older:
                foreign = deep > BORDER or (deep > 0 and own < BORDER)
            else:
                foreign = deep > BORDER and own < BORDER
            assert (patch in found) != foreign, (scene, patch, deep, own)
        assert 0 < len(found) < len(PATCHES)
        # Its boxes lie where its own grid puts them.
        there = Transformer.from_crs(4326, ZONES[scene], always_xy=True)
        for row in rows.itertuples():
            corners = np.array(row.geometry.exterior.coords).T
            x, y = ~GRIDS[scene] @ there.transform(*corners)
            extent = (x.min(), y.min(), x.max(), y.max())
            assert extent == pytest.approx((row.xmin, row.ymin, row.xmax, row.ymax), abs=0.01)
    storage, collection = open_output(tmp_path / "out")
    checked = validate_output(storage, collection, fetch_schemas=False)
    assert checked.ok, checked.problems
