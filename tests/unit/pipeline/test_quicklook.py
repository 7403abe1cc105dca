from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from geosweep.catalog import OutputError, Records, open_storage
from geosweep.pipeline import write_quicklook
from geosweep.pipeline._palette import label_colours
from tests.outputs import make_output


def rows_of(output: Path, crs: str | None = "EPSG:3857") -> gpd.GeoDataFrame:
    frames = [gpd.read_parquet(path) for path in sorted((output / "data").glob("*.parquet"))]
    frame = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True))
    return frame.to_crs(crs) if crs else frame


def map_bounds(output: Path) -> np.ndarray:
    """Extent of all scenes in web mercator, the picture's own."""
    footprints = [record.scene.footprint for record in Records(open_storage(output)).all()]
    known = gpd.GeoSeries([f for f in footprints if f is not None], crs="EPSG:4326")
    return known.to_crs("EPSG:3857").total_bounds


def close(pixel: np.ndarray, colour: str, tolerance: int = 60) -> bool:
    return int(np.abs(pixel.astype(int) - ImageColor.getrgb(colour)).max()) <= tolerance


def test_boxes_stand_where_they_belong_in_their_label_colour(tmp_path):
    output = make_output(tmp_path)
    picture = np.array(Image.open(write_quicklook(output, tmp_path / "q.png", size=800)))
    rows = rows_of(output)
    colours = label_colours(rows["cropmodel_label"].value_counts().index)
    left, _, _, top = map_bounds(output)
    scale = 800 / max(map_bounds(output)[2] - left, top - map_bounds(output)[1])
    for shape, label in zip(rows.geometry, rows["cropmodel_label"], strict=True):
        for corner, following in zip(
            shape.exterior.coords, shape.exterior.coords[1:], strict=False
        ):
            x, y = (np.array(corner) + following) / 2
            column, line = int((x - left) * scale), int((top - y) * scale)
            around = picture[line - 1 : line + 2, column - 1 : column + 2].reshape(-1, 3)
            assert any(close(pixel, colours[label]) for pixel in around), (label, column, line)
        # Inside a box there is imagery, grey.
        x, y = shape.centroid.coords[0]
        inside = picture[int((top - y) * scale), int((x - left) * scale)]
        assert np.ptp(inside.astype(int)) <= 3


def test_mosaic_shows_the_imagery_at_its_place(tmp_path):
    output = make_output(tmp_path, detections=0)
    picture = np.array(Image.open(write_quicklook(output, tmp_path / "q.png", size=600)))
    assert abs(int(picture[100, 60, 0]) - 60) <= 2
    assert abs(int(picture[100, 540, 0]) - 120) <= 2


def test_legend_has_each_label_and_stands_below_the_map(tmp_path):
    output = make_output(tmp_path)
    picture = np.array(Image.open(write_quicklook(output, tmp_path / "q.png", size=600)))
    bounds = map_bounds(output)
    height = round(600 * (bounds[3] - bounds[1]) / (bounds[2] - bounds[0]))
    legend = picture[height:].reshape(-1, 3)
    assert len(legend) > 0
    for colour in label_colours(rows_of(output)["cropmodel_label"].value_counts().index).values():
        assert (legend == ImageColor.getrgb(colour)).all(axis=1).sum() > 50


def test_pixel_output_and_missing_imagery(tmp_path):
    output = make_output(tmp_path, crs=None, imagery=False, failed=False)
    picture = np.array(Image.open(write_quicklook(output, tmp_path / "q.png", size=820)))
    rows = rows_of(output, crs=None)
    first = rows[rows.scene_id == "A"].iloc[0]
    colours = label_colours(rows["cropmodel_label"].value_counts().index)
    pixel = picture[int((first.ymin + first.ymax) / 2), int(first.xmin)]
    assert close(pixel, colours[first.cropmodel_label])


def test_nothing_to_draw_is_one_sentence(tmp_path):
    output = make_output(tmp_path)
    for name in ("A", "B"):
        (output / "items" / f"{name}.json").unlink()
    with pytest.raises(OutputError, match="nothing to draw"):
        write_quicklook(output, tmp_path / "q.png")
