"""Tiles on disk: the pixels and boxes of their windows, from any raster, in flat memory."""

import tracemalloc
import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import Affine

from geosweep.catalog.errors import AnnotationError, OutputError, RasterError
from geosweep.models import (
    annotation_frame,
    boxes_to_map,
    read_annotations,
    split_raster,
    write_annotations,
)
from geosweep.models._annotations import deepforest_data
from geosweep.models.data._stripes import read_windows
from tests.rasters import LAYOUTS, textured, write_raster

BOX = ["xmin", "ymin", "xmax", "ymax"]


def frame_of(path, boxes, labels=None):
    labels = labels or ["Tree"] * len(boxes)
    return annotation_frame([path.name] * len(boxes), boxes, labels, root_dir=path.parent)


def test_tiles_hold_their_windows(tmp_path):
    image = textured(230, 310)
    turned = Affine.translation(5e5, 4.9e6) @ Affine.rotation(20) @ Affine.scale(0.5, -0.4)
    path = write_raster(tmp_path / "a.tif", image, transform=turned)
    boxes = [[10, 10, 30, 40], [95, 5, 111, 15], [299, 219, 310, 230]]
    tiles = split_raster(path, frame_of(path, boxes), 100, 0.1, save_dir=tmp_path / "tiles")
    # Steps of 90 px, the last window shifted inwards; the second box lies in two tiles: whole in the
    # one from 90 to 190, and in the first by 5 of its 16 pixels, which is less than half.
    assert tiles[["image_path", *BOX]].to_numpy().tolist() == [
        ["a_0_0.png", 10, 10, 30, 40],
        ["a_90_0.png", 5, 5, 21, 15],
        ["a_210_130.png", 89, 89, 100, 100],
    ]
    assert tiles[["source", "xoff", "yoff"]].iloc[2].tolist() == [str(path.resolve()), 210, 130]
    assert sorted(p.name for p in (tmp_path / "tiles").glob("*.png")) == [
        "a_0_0.png",
        "a_210_130.png",
        "a_90_0.png",
    ]
    for name, x, y in tiles[["image_path", "xoff", "yoff"]].itertuples(index=False):
        with rasterio.open(tmp_path / "tiles" / name) as tile:
            np.testing.assert_array_equal(tile.read(), image[:, y : y + 100, x : x + 100])
            assert tile.crs == rasterio.CRS.from_epsg(32612)
            assert tile.transform.almost_equals(turned @ Affine.translation(x, y), 1e-6)
    again = read_annotations(tmp_path / "tiles" / "a.csv")
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(tiles), check_like=True)
    assert again.attrs == tiles.attrs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path, layout):
    """DeepForest refuses images that are not three bands, and reads every raster whole."""
    options = LAYOUTS[layout]
    path = write_raster(tmp_path / "image", textured(777, 530), **options)
    with rasterio.open(path) as dataset:
        expected = dataset.read()
    tiles = split_raster(path, patch_size=200, save_dir=tmp_path / "tiles")
    assert len(tiles) == 3 * 5
    assert tiles["label"].isna().all()
    assert (tiles[BOX] == 0).all(axis=None)
    for name, x, y in tiles[["image_path", "xoff", "yoff"]].itertuples(index=False):
        with rasterio.open(tmp_path / "tiles" / name) as tile:
            np.testing.assert_array_equal(tile.read(), expected[:, y : y + 200, x : x + 200])


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_many_bands_and_other_types(tmp_path, kind):
    data = (textured(120, 150, 5).astype(kind) * 100).astype(kind)
    path = write_raster(tmp_path / "many.tif", data, nodata=7)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("red", "green", "blue", "nir", "height")
    split_raster(path, patch_size=100, save_dir=tmp_path / "all")
    with rasterio.open(tmp_path / "all" / "many_50_20.tif") as tile:
        assert tile.dtypes == (kind,) * 5
        assert tile.descriptions[3] == "nir"
        assert tile.nodata == 7
        np.testing.assert_array_equal(tile.read(), data[:, 20:, 50:])
    split_raster(path, patch_size=100, save_dir=tmp_path / "two", bands=["nir", 1])
    with rasterio.open(tmp_path / "two" / "many_0_0.tif") as tile:
        np.testing.assert_array_equal(tile.read(), data[[3, 0], :100, :100])
    with pytest.raises(RasterError, match="no band named 'swir'; its bands are red, green"):
        split_raster(path, save_dir=tmp_path / "none", bands=["swir"])


def test_alpha_is_dropped_and_tiles_without_data_are_no_negatives(tmp_path):
    rgba = np.concatenate([textured(100, 300), np.full((1, 100, 300), 255, np.uint8)])
    rgba[3, :, :100] = 0
    path = write_raster(tmp_path / "a.tif", rgba, photometric="RGB", alpha="YES")
    tiles = split_raster(path, patch_size=100, patch_overlap=0, save_dir=tmp_path / "tiles")
    assert tiles["image_path"].tolist() == ["a_100_0.png", "a_200_0.png"]
    # Labelled ground is kept, whatever the mask says.
    frame = frame_of(path, [[10, 10, 20, 20]])
    kept = split_raster(path, frame, 100, 0, save_dir=tmp_path / "tiles")
    assert kept["image_path"].tolist() == ["a_0_0.png"]
    with rasterio.open(tmp_path / "tiles" / "a_0_0.png") as tile:
        assert tile.count == 3


def test_negatives_on_demand(tmp_path):
    path = write_raster(tmp_path / "a.png", textured(100, 200), driver="PNG", crs=None)
    frame = frame_of(path, [[10, 10, 20, 20]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a picture without georeferencing is no surprise
        few = split_raster(path, frame, 100, 0, save_dir=tmp_path / "few")
    both = split_raster(path, frame, 100, 0, save_dir=tmp_path / "both", allow_empty=True)
    assert few["image_path"].tolist() == ["a_0_0.png"]
    assert both["image_path"].tolist() == ["a_0_0.png", "a_100_0.png"]
    assert both["label"].tolist() == ["Tree", None]
    assert not (tmp_path / "both" / "a_0_0.png.aux.xml").exists()  # nothing to georeference
    negative = frame_of(path, [[0, 0, 0, 0]], [None])
    with pytest.raises(AnnotationError, match=r"No tile of .*allow_empty=True"):
        split_raster(path, negative, 100, 0, save_dir=tmp_path / "none")
    assert len(split_raster(path, negative, 100, save_dir=tmp_path, allow_empty=True)) == 3


def test_what_is_visible_of_a_box(tmp_path, caplog):
    path = write_raster(tmp_path / "a.tif", textured(100, 200))
    frame = frame_of(path, [[70, 10, 110, 20], [10, 50, 190, 90]])
    tiles = split_raster(path, frame, 100, 0, save_dir=tmp_path / "tiles")
    # Three quarters of the first are in the left tile; half of the second is in each.
    assert tiles[["xoff", *BOX]].to_numpy().tolist() == [
        [0, 70, 10, 100, 20],
        [0, 10, 50, 100, 90],
        [100, 0, 50, 90, 90],
    ]
    more = split_raster(path, frame, 100, 0, save_dir=tmp_path / "more", min_visible=0.2)
    assert more[["xoff", *BOX]].to_numpy().tolist()[2] == [100, 0, 10, 10, 20]
    split_raster(path, frame, 100, 0, save_dir=tmp_path / "less", min_visible=0.6)
    assert "a.tif: 1 of 2 boxes are in no tile" in caplog.text


def test_a_raster_smaller_than_a_tile(tmp_path):
    path = write_raster(tmp_path / "a.tif", textured(60, 90))
    tiles = split_raster(path, frame_of(path, [[10, 10, 20, 20]]), save_dir=tmp_path / "t")
    with rasterio.open(tmp_path / "t" / tiles["image_path"].iloc[0]) as tile:
        assert tile.shape == (60, 90)


def test_several_rasters_in_one_annotation_file(tmp_path):
    paths = []
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        paths.append(write_raster(tmp_path / place / "a.tif", textured(100, 100, seed=ord(place))))
    csv = tmp_path / "boxes.csv"
    csv.write_text(
        "image_path,xmin,ymin,xmax,ymax,label\nx/a.tif,1,2,3,4,Tree\ny/a.tif,5,6,7,8,Dead\n"
    )
    folder = tmp_path / "tiles"
    tiles = split_raster(annotations=csv, save_dir=folder)
    # DeepForest writes both to the same files.
    first, second = tiles["image_path"]
    assert first == "a_0_0.png" and second.startswith("a-") and second.endswith("_0_0.png")
    for name, path, box in zip(
        tiles["image_path"], paths, ([1, 2, 3, 4], [5, 6, 7, 8]), strict=True
    ):
        with rasterio.open(folder / name) as tile, rasterio.open(path) as raster:
            np.testing.assert_array_equal(tile.read(), raster.read())
        assert tiles.loc[tiles["image_path"] == name, BOX].to_numpy().tolist() == [box]
    # Whatever the order, and however often: the same names. One folder reads as one set.
    again = split_raster(paths[::-1], csv, save_dir=folder)
    assert sorted(again["image_path"]) == sorted(tiles["image_path"])
    assert len(list(folder.glob("*.png"))) == 2
    assert sorted(read_annotations(folder)["image_path"]) == sorted(tiles["image_path"])
    (only,) = split_raster(paths[1], csv, save_dir=folder)["label"]
    assert only == "Dead"


def test_nobody_elses_csv_is_overwritten(tmp_path):
    """DeepForest's default writes its CSV over the annotations that it has just read."""
    path = write_raster(tmp_path / "a.tif", textured(100, 100))
    write_annotations(frame_of(path, [[10, 10, 20, 20]]), tmp_path / "a.csv")
    before = (tmp_path / "a.csv").read_text()
    split_raster(path, tmp_path / "a.csv", save_dir=tmp_path)
    assert (tmp_path / "a.csv").read_text() == before


def test_vector_annotations_belong_to_the_raster(tmp_path):
    path = write_raster(tmp_path / "a.tif", textured(100, 100))
    boxes_to_map(frame_of(path, [[10, 10, 20, 20]]))[["label", "geometry"]].to_file(
        tmp_path / "trees.gpkg"
    )
    tiles = split_raster(path, tmp_path / "trees.gpkg", save_dir=tmp_path / "tiles")
    np.testing.assert_allclose(tiles[BOX], [[10, 10, 20, 20]], atol=1e-4)


def test_mistakes_are_one_sentence(tmp_path):
    path = write_raster(tmp_path / "a.tif", textured(100, 100))
    other = write_raster(tmp_path / "b.tif", textured(100, 100))
    frame = frame_of(path, [[10, 10, 20, 20]])
    with pytest.raises(AnnotationError, match=r"no row for .*b\.tif \(they name .*a\.tif\)"):
        split_raster(other, frame, save_dir=tmp_path)
    with pytest.raises(AnnotationError, match="needs a raster, or annotations"):
        split_raster(save_dir=tmp_path)
    for name, value in (("patch_size", 0), ("patch_overlap", 1), ("min_visible", 2)):
        with pytest.raises(AnnotationError, match=f"{name} is {value}"):
            split_raster(path, frame, save_dir=tmp_path, **{name: value})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        split_raster(path, frame, save_dir=tmp_path / "file")
    with pytest.raises(RasterError, match=r"gone\.tif does not exist"):
        split_raster(tmp_path / "gone.tif", save_dir=tmp_path)


class Counting:
    """A dataset that notes what is read of it."""

    def __init__(self, dataset):
        self._dataset, self.reads = dataset, []

    def __getattr__(self, name):
        return getattr(self._dataset, name)

    def read(self, bands, window):
        self.reads.append((window.col_off, window.row_off, window.width, window.height))
        return self._dataset.read(bands, window=window)


def grid(width, height, size, step):
    xs = [*range(0, width - size, step), width - size]
    ys = [*range(0, height - size, step), height - size]
    return np.array([(x, y, size, size) for y in ys for x in xs], np.int64)


def test_each_block_is_read_once(tmp_path, monkeypatch):
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    path = write_raster(tmp_path / "a.tif", textured(500, 640), **options)
    windows = grid(640, 500, 100, 90)
    with rasterio.open(path) as dataset:
        whole, counting = dataset.read(), Counting(dataset)
        found = {n: pixels for n, pixels, _ in read_windows(counting, [1, 2, 3], windows)}
        assert sorted(found) == list(range(len(windows)))
        for n, (x, y, w, h) in enumerate(windows):
            np.testing.assert_array_equal(found[n], whole[:, y : y + h, x : x + w])
        rows = [(y, y + h) for _, y, _, h in counting.reads]
        assert rows == sorted(rows) and rows[0][0] == 0 and rows[-1][1] == 500
        assert all(a[1] == b[0] and b[0] % 64 == 0 for a, b in pairwise(rows))
        # Nothing between two windows that are far apart, and whole blocks only.
        apart, counting = windows[[0, len(windows) - 1]], Counting(dataset)
        list(read_windows(counting, [1], apart))
        assert [(y, h) for _, y, _, h in counting.reads] == [(0, 128), (384, 116)]
        # Too wide to be held: columns of blocks, one after the other.
        monkeypatch.setattr("geosweep.models.data._stripes.MAX_HELD_BYTES", 1)
        monkeypatch.setattr("geosweep.models.data._stripes.MIN_WIDTH", 300)
        counting = Counting(dataset)
        for n, pixels, _ in read_windows(counting, [1, 2, 3], windows):
            np.testing.assert_array_equal(pixels, found.pop(n))
        assert not found
        assert max(w for _, _, w, _ in counting.reads) <= 300 + 2 * 64


def test_memory_does_not_grow_with_the_raster(tmp_path):
    """DeepForest holds the raster several times over."""

    def peak(height):
        path = tmp_path / f"{height}.tif"
        options = {"width": 512, "height": height, "count": 3, "dtype": "uint8", "tiled": True}
        with rasterio.open(path, "w", driver="GTiff", **options):
            pass
        boxes = [[10, y, 30, y + 20] for y in range(0, height - 20, 1000)]
        frame = frame_of(path, boxes)
        tracemalloc.start()
        split_raster(path, frame, 400, save_dir=tmp_path / str(height))
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return high

    peak(1000)
    low, high = peak(2000), peak(16_000)
    assert high < low + 2**20 < 2 * 512 * 2000 * 3
    assert high < 512 * 16_000 * 3 / 4


# ------------------------------------------------------------------------------------ DeepForest


@pytest.mark.filterwarnings("ignore:Input image had non-3", "ignore:Boolean Series key")
def test_the_tiles_of_deepforest(tmp_path):
    """Same windows, same boxes, on its own sample."""
    from deepforest.preprocess import split_raster as their_split

    folder = deepforest_data()
    name = "2019_YELL_2_541000_4977000_image_crop"
    ours = split_raster(
        folder / f"{name}.png", folder / f"{name}.xml", 400, 0.05, save_dir=tmp_path / "ours"
    )
    theirs = their_split(
        str(folder / f"{name}.xml"),
        str(folder / f"{name}.png"),
        root_dir=str(folder),
        patch_size=400,
        patch_overlap=0.05,
        save_dir=str(tmp_path / "theirs"),
    )
    assert ours["image_path"].nunique() == theirs["image_path"].nunique() == 12
    # Theirs are numbered, column by column. They keep what shows more than half, ours at least half.
    tiles = ours.groupby(["xoff", "yoff"])
    for number, (_, tile) in enumerate(tiles):
        boxes = {tuple(box) for box in tile[BOX].to_numpy().round(6)}
        same = theirs[theirs["image_path"] == f"{name}_{number}.png"]
        expected = {tuple(box) for box in same[BOX].to_numpy(float).round(6)}
        assert expected <= boxes
        assert len(boxes - expected) <= 2
