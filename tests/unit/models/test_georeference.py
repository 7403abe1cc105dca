"""Pixels to the map and back, for any affine transform; without DeepForest's half pixel."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile
from rasterio.transform import Affine, from_origin

from geosweep.catalog.errors import AnnotationError, RasterError
from geosweep.models import annotation_frame, boxes_to_map, map_to_pixels
from tests.rasters import UTM, textured, write_raster

BOX = ["xmin", "ymin", "xmax", "ymax"]


@pytest.fixture
def turned(tmp_path):
    transform = Affine.translation(5e5, 4.9e6) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25)
    return write_raster(tmp_path / "turned.tif", textured(80, 100), transform=transform)


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-180, 180),
    shear=st.floats(-40, 40),
    width=st.floats(0.02, 30),
    ratio=st.floats(0.3, 3),
    flip=st.sampled_from([1, -1]),
    corner=st.tuples(st.floats(1e5, 9e5), st.floats(0, 9e6)),
    box=st.tuples(*[st.floats(0, 5000)] * 2, *[st.floats(0.5, 500)] * 2),
)
def test_there_and_back(angle, shear, width, ratio, flip, corner, box):
    transform = (
        Affine.translation(*corner)
        @ Affine.rotation(angle)
        @ Affine.shear(shear, 0)
        @ Affine.scale(width, flip * width * ratio)
    )
    profile = {"width": 8, "height": 8, "count": 1, "dtype": "uint8", "driver": "GTiff"}
    with MemoryFile() as memory:
        with memory.open(**profile, crs=UTM, transform=transform) as raster:
            raster.write(np.zeros((1, 8, 8), np.uint8))
        x, y, w, h = box
        boxes = [[x, y, x + w, y + h], [0, 0, 0, 0]]
        frame = annotation_frame([memory.name] * 2, boxes, ["Tree", None])
        mapped = boxes_to_map(frame)
        back = map_to_pixels(mapped)
    np.testing.assert_allclose(back[BOX], boxes, rtol=0, atol=1e-6)
    corners = [transform @ (a, b) for a, b in ((x, y), (x + w, y), (x + w, y + h), (x, y + h))]
    # rasterio keeps transforms in float64, but a GeoTIFF of a rotated one passes through a matrix.
    expected = shapely.Polygon(corners)
    assert mapped.geometry.iloc[0].hausdorff_distance(expected) < 1e-6 * max(width, 1)
    assert mapped.geometry.iloc[1].is_empty
    assert back["label"].tolist() == ["Tree", None]


def test_corners_are_where_rasterio_puts_them(turned):
    """DeepForest adds half a pixel: its polygons start in the middle of their first pixel."""
    frame = annotation_frame([turned.name], [[10, 20, 30, 50]], ["Tree"], root_dir=turned.parent)
    (polygon,) = boxes_to_map(frame).geometry
    with rasterio.open(turned) as raster:
        corners = [
            raster.xy(row, col, offset="ul")
            for row, col in [(20, 10), (20, 30), (50, 30), (50, 10)]
        ]
    assert polygon.equals_exact(shapely.Polygon(corners), 1e-9 * 5e6)


def test_deepforests_half_pixel_and_ours():
    from deepforest.utilities import image_to_geo_coordinates, read_file

    from geosweep.models import read_annotations
    from geosweep.models._annotations import deepforest_data

    path = deepforest_data() / "OSBS_029.csv"
    ours = boxes_to_map(read_annotations(path))
    theirs = image_to_geo_coordinates(read_file(str(path)))
    with rasterio.open(path.with_suffix(".tif")) as raster:
        first = ours.iloc[0]
        west, north = raster.transform @ (first["xmin"], first["ymin"])
        half = raster.res[0] / 2
    assert ours.geometry.iloc[0].bounds[0] == pytest.approx(west, abs=1e-6)
    assert ours.geometry.iloc[0].bounds[3] == pytest.approx(north, abs=1e-6)
    shift = theirs.geometry.bounds.to_numpy() - ours.geometry.bounds.to_numpy()
    np.testing.assert_allclose(shift, np.tile([half, -half, half, -half], (61, 1)), atol=1e-6)
    assert ours.crs == theirs.crs


def test_another_crs_and_several_rasters(tmp_path, turned):
    other = write_raster(
        tmp_path / "other.tif",
        textured(80, 100),
        transform=from_origin(-110, 45, 1e-5, 1e-5),
        crs="EPSG:4326",
    )
    frame = annotation_frame(
        [turned.name, other.name],
        [[10, 20, 30, 50], [0, 0, 10, 10]],
        ["Tree"] * 2,
        root_dir=tmp_path,
    )
    with pytest.raises(AnnotationError, match=r"other\.tif has another CRS.*crs="):
        boxes_to_map(frame)
    mapped = boxes_to_map(frame, crs="EPSG:4326")
    assert mapped.crs == "EPSG:4326"
    assert mapped.geometry.iloc[1].bounds == pytest.approx((-110, 44.9999, -109.9999, 45))
    np.testing.assert_allclose(map_to_pixels(mapped)[BOX], frame[BOX], atol=1e-3)


def test_the_whole_frame_on_one_raster(turned):
    frame = gpd.GeoDataFrame(
        {"image_path": ["somewhere/else.tif"], "label": ["Tree"], "score": [0.5]}
        | dict(zip(BOX, [[10.0], [20.0], [30.0], [50.0]], strict=True)),
        geometry=[shapely.Point(0, 0)],
    )
    mapped = boxes_to_map(frame, turned)
    assert mapped["score"].tolist() == [0.5]
    back = map_to_pixels(mapped, turned)
    np.testing.assert_allclose(back[BOX], frame[BOX], atol=1e-6)
    assert back["image_path"].tolist() == [str(turned)]
    assert back["score"].tolist() == [0.5]


def test_what_has_no_place(tmp_path, turned):
    write_raster(tmp_path / "flat.png", textured(80, 100), driver="PNG", crs=None)
    frame = annotation_frame(["flat.png"], [[10, 20, 30, 50]], ["Tree"], root_dir=tmp_path)
    with pytest.raises(AnnotationError, match="no georeferencing"):
        boxes_to_map(frame)
    with pytest.raises(RasterError, match="does not exist"):
        boxes_to_map(frame, tmp_path / "gone.tif")
    with pytest.raises(AnnotationError, match="'EPSG:nonsense' is no CRS"):
        boxes_to_map(frame, turned, crs="EPSG:nonsense")
