"""Windows cut from rasters: the right pixels, the right boxes, in any process."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from geosweep.catalog.errors import AnnotationError, RasterError, TrainingError
from geosweep.models._annotations import deepforest_data
from geosweep.models.data import (
    Augment,
    RandomCropDataset,
    WindowConfig,
    WindowDataset,
    annotation_frame,
    read_annotations,
)
from geosweep.models.data._boxdataset import Draw
from geosweep.models.data._reader import MAX_OPEN
from geosweep.models.data._windows import cut_boxes
from geosweep.models.data.datamodule import collate


def coordinates(width, height):
    """A picture whose pixels say where they are: x, y, and a mixture, uint8 (3, H, W)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, (x // 256) * 16 + y // 256]).astype(np.uint8)


def write(path, pixels, **profile):
    """Write a raster; returns its path."""
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "dtype": pixels.dtype, **profile}
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as out:
        out.write(pixels)
    return path


def frame(root, rows):
    """An annotation frame of (image, box or None, label) rows."""
    paths, boxes, labels = zip(*rows, strict=True)
    return annotation_frame(paths, [box or [0] * 4 for box in boxes], labels, root_dir=root)


@pytest.fixture
def tiff(tmp_path):
    """A tiled GeoTIFF of 300×200 px with three boxes."""
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    write(tmp_path / "a.tif", coordinates(300, 200), **tiles)
    boxes = [[10, 20, 40, 60], [90, 90, 130, 120], [200, 150, 260, 190]]
    return frame(tmp_path, [("a.tif", box, label) for box, label in zip(boxes, "bab", strict=True)])


def test_every_window_has_its_own_pixels_and_boxes(tiff):
    dataset = WindowDataset(tiff, WindowConfig(size=100, overlap=0.2))
    picture = torch.from_numpy(coordinates(300, 200)).float() / 255
    assert dataset.labels == ("a", "b")
    assert len(dataset) == 4 * 3  # x: 0, 80, 160, 200; y: 0, 80, 100
    for image, target in dataset:
        x, y, width, height = target["window"]
        assert (width, height) == (100, 100)
        assert image.dtype == torch.float32 and image.shape == (3, 100, 100)
        assert torch.equal(image, picture[:, y : y + 100, x : x + 100])
        assert target["image_path"] == "a.tif"
        assert target["boxes"].dtype == torch.float32 and target["labels"].dtype == torch.int64
    image, target = dataset[5]
    assert target["window"] == (80, 80, 100, 100)
    assert target["boxes"].tolist() == [[10, 10, 50, 40]] and target["labels"].tolist() == [0]
    assert dataset[-1][1]["window"] == dataset[len(dataset) - 1][1]["window"]
    with pytest.raises(IndexError):
        dataset[12]


def test_boxes_are_cut_by_hand():
    boxes = np.array([[-10.0, 0, 10, 10], [-16, 0, 4, 10], [90, 90, 120, 120], [1, 1, 3, 3]])
    local, kept = cut_boxes(boxes, (0, 0, 100, 100), min_visible=0.25, min_side=4)
    # Half left; a fifth left; a ninth left; small, but whole.
    assert kept.tolist() == [True, False, False, True]
    assert local.tolist() == [[0, 0, 10, 10], [1, 1, 3, 3]]
    local, kept = cut_boxes(boxes[:1], (5, 2, 20, 20), min_visible=0, min_side=6)
    assert kept.tolist() == [False]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-50, 150)] * 2, *[st.floats(0.5, 80)] * 2), max_size=6),
    st.floats(0, 1),
)
def test_what_is_kept_of_boxes_lies_in_the_window(corners, min_visible):
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in corners]).reshape(-1, 4)
    local, kept = cut_boxes(boxes, (20, 10, 60, 70), min_visible=min_visible, min_side=3)
    assert len(local) == kept.sum()
    assert (local >= 0).all() and (local <= [60, 70, 60, 70]).all()
    area, full = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (local, boxes[kept]))
    assert (area > 0).all() and (area >= min_visible * full * (1 - 1e-9)).all()
    inside = (boxes[:, :2] >= [20, 10]).all(1) & (boxes[:, 2:] <= [80, 80]).all(1)
    assert kept[inside].all()


@pytest.mark.parametrize(
    ("negatives", "count"), [("all", 12), (1.0, 12), (0.0, 4), (0.5, 8), (0.2, 5)]
)
def test_negatives_are_kept_at_their_share(tiff, negatives, count):
    config = WindowConfig(size=100, overlap=0.2, negatives=negatives, min_visible=0.9)
    dataset = WindowDataset(tiff, config, seed=1)
    assert len(dataset) == count
    having = [len(target["boxes"]) > 0 for _, target in dataset]
    assert sum(having) == 4 and having == dataset.positives.tolist()


def test_images_without_objects_give_windows_without_boxes(tmp_path):
    write(tmp_path / "empty.tif", coordinates(64, 64))
    rows = frame(tmp_path, [("empty.tif", None, None)])
    image, target = WindowDataset(rows, WindowConfig(size=64), labels=["x"])[0]
    assert image.shape == (3, 64, 64) and target["boxes"].shape == (0, 4)
    with pytest.raises(AnnotationError, match="leave no training window"):
        WindowDataset(rows, WindowConfig(size=64, negatives=0.5), labels=["x"])


@pytest.mark.parametrize("size", [None, 400])
def test_small_images_are_windows_of_their_size(tmp_path, size):
    write(tmp_path / "b.png", coordinates(90, 70), driver="PNG")
    rows = frame(tmp_path, [("b.png", [10, 10, 30, 30], "x")])
    ((image, target),) = list(WindowDataset(rows, WindowConfig(size=size)))
    assert torch.equal(image, torch.from_numpy(coordinates(90, 70)).float() / 255)
    assert target["window"] == (0, 0, 90, 70)


def test_regions_bound_the_windows(tiff):
    regions = {"a.tif": [(0, 0, 120, 200), (250, 10, 300, 200)]}
    windows = [
        target["window"]
        for _, target in WindowDataset(tiff, WindowConfig(size=100), regions=regions)
    ]
    assert windows == [
        *[(x, y, 100, 100) for y in (0, 95, 100) for x in (0, 20)],
        *[(250, y, 50, 100) for y in (10, 100)],
    ]


def test_sixteen_bits_and_given_ranges(tmp_path):
    values = np.arange(3 * 32 * 32, dtype=np.uint16).reshape(3, 32, 32) * 20
    write(tmp_path / "c.tif", values, nodata=0)
    rows = frame(tmp_path, [("c.tif", [1, 1, 9, 9], "x")])
    exact = torch.from_numpy(values.astype(np.float32))
    image, _ = WindowDataset(rows, WindowConfig(size=32))[0]
    assert torch.allclose(image, exact / 65535, atol=1e-7)
    image, _ = WindowDataset(rows, WindowConfig(size=32, rescale=(1000, 41000)))[0]
    assert torch.allclose(image, ((exact - 1000) / 40000).clamp(0, 1), atol=1e-6)
    pairs = ((0, 20000), (0, 40000), (10000, 20000))
    image, _ = WindowDataset(rows, WindowConfig(size=32, rescale=pairs))[0]
    assert torch.allclose(image[2], ((exact[2] - 10000) / 10000).clamp(0, 1), atol=1e-6)


def test_floats_need_a_range_and_their_gaps_are_black(tmp_path):
    values = np.full((3, 32, 32), 0.5, np.float32)
    values[:, :4] = np.nan
    write(tmp_path / "d.tif", values, nodata=np.nan)
    rows = frame(tmp_path, [("d.tif", [1, 1, 9, 9], "x")])
    with pytest.raises(RasterError, match=r"d\.tif is float32.*rescale"):
        WindowDataset(rows, WindowConfig(size=32))
    image, _ = WindowDataset(rows, WindowConfig(size=32, rescale=(0, 2)))[0]
    assert (image[:, :4] == 0).all() and (image[:, 4:] == 0.25).all()


def test_bands_are_chosen_and_never_guessed(tmp_path):
    pixels = np.concatenate([coordinates(40, 40), np.full((1, 40, 40), 200, np.uint8)])
    write(tmp_path / "four.tif", pixels, photometric="minisblack")
    write(tmp_path / "rgba.png", pixels, driver="PNG")
    with rasterio.open(tmp_path / "four.tif", "r+") as out:
        out.descriptions = ("red", "green", "blue", "nir")
    rows = frame(tmp_path, [("four.tif", [1, 1, 9, 9], "x")])
    with pytest.raises(RasterError, match=r"four\.tif has 4 bands .* bands, for example"):
        WindowDataset(rows)
    image, _ = WindowDataset(rows, WindowConfig(bands=(4, "green", 1)))[0]
    assert torch.equal(image, torch.from_numpy(pixels[[3, 1, 0]]).float() / 255)
    with pytest.raises(RasterError, match=r"no band named 'swir'; its bands are red, green"):
        WindowDataset(rows, WindowConfig(bands=(1, 2, "swir")))
    with pytest.raises(RasterError, match="bands 1 to 4, and bands asks for 5"):
        WindowDataset(rows, WindowConfig(bands=(1, 2, 5)))
    alpha = frame(tmp_path, [("rgba.png", [1, 1, 9, 9], "x")])
    image, _ = WindowDataset(alpha)[0]
    assert torch.equal(image, torch.from_numpy(pixels[:3]).float() / 255)


def test_a_coarser_resolution_is_read_from_its_overview(tmp_path):
    y, x = np.mgrid[:512, :768]
    wave = (127 + 60 * np.sin(x / 40) + 60 * np.cos(y / 30)).astype(np.uint8)
    path = write(
        tmp_path / "fine.tif",
        np.stack([wave] * 3),
        crs="EPSG:32633",
        transform=rasterio.Affine(0.1, 0, 500000, 0, -0.1, 5000000),
        tiled=True,
        blockxsize=128,
        blockysize=128,
    )
    with rasterio.open(path, "r+") as out:
        out.build_overviews([2, 4], Resampling.average)
    rows = frame(tmp_path, [("fine.tif", [100, 60, 160, 120], "x")])
    for resolution, scale, side in ((0.2, 2.0, 200), (0.3, 3.0, 300), (0.5, 5.0, 500)):
        config = WindowConfig(size=100, overlap=0, resolution=resolution)
        dataset = WindowDataset(rows, config)
        image, target = dataset[0]
        assert image.shape == (3, 100, 100)
        assert target["window"] == (0, 0, side, side)
        expected = np.array([100, 60, 160, 120]) / scale
        assert target["boxes"].tolist() == [pytest.approx(expected)]
        centres = (np.arange(100) + 0.5) * scale - 0.5
        truth = 127 + 60 * np.sin(centres[None] / 40) + 60 * np.cos(centres[:, None] / 30)
        assert np.abs(image[0].numpy() * 255 - truth)[2:-2, 2:-2].mean() < 1.0
    # From the overview: 4 px of it lie in a training pixel of 0.5 m, not 25 of the raster.
    assert dataset._infos[0].level == 1 and dataset._infos[0].width == 192
    unplaced = write(tmp_path / "nowhere.tif", coordinates(64, 64))
    rows = frame(tmp_path, [(unplaced.name, [1, 1, 9, 9], "x")])
    with pytest.raises(RasterError, match=r"nowhere\.tif has no georeferencing"):
        WindowDataset(rows, WindowConfig(resolution=0.2))


def test_rasters_of_hundreds_of_megapixels_are_read_by_the_window(tmp_path):
    side = 20000  # 400 Mpx: Pillow refuses more than 179
    with rasterio.open(
        tmp_path / "huge.tif", "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
        tiled=True, sparse_ok=True,
    ) as out:  # fmt: skip
        spot = rasterio.windows.Window(side - 64, side - 64, 64, 64)
        out.write(coordinates(64, 64), window=spot)
    corner = side - 50
    rows = frame(tmp_path, [("huge.tif", [corner, corner, corner + 20, corner + 20], "x")])
    dataset = WindowDataset(rows, WindowConfig(size=64, overlap=0, negatives=0.0))
    image, target = dataset[len(dataset) - 1]
    assert target["window"] == (side - 64, side - 64, 64, 64)
    assert target["boxes"].tolist() == [[14, 14, 34, 34]]
    assert torch.equal(image, torch.from_numpy(coordinates(64, 64)).float() / 255)


def folder_of_rasters(root, count, size=60):
    """`count` small GeoTIFFs, each with one box."""
    rows = []
    for i in range(count):
        write(root / f"{i}.tif", (coordinates(size, size) + i).astype(np.uint8))
        rows.append((f"{i}.tif", [5, 5, 25, 20 + i % 10], "x"))
    return frame(root, rows)


def test_few_files_are_open_at_once(tmp_path):
    dataset = WindowDataset(folder_of_rasters(tmp_path, 3 * MAX_OPEN), WindowConfig(size=60))

    def open_here():
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(link.readlink().is_relative_to(tmp_path) for link in links)

    assert open_here() == 0
    assert max([open_here() for _ in dataset]) == MAX_OPEN


def as_lists(loader):
    return [
        (image, target["boxes"], target["image_path"])
        for batch in loader
        for image, target in zip(*batch, strict=True)
    ]


def test_workers_read_what_one_process_reads(tmp_path):
    """DeepForest crashes here: its workers share one GDAL handle across the fork."""
    rows = folder_of_rasters(tmp_path, 8)
    dataset = WindowDataset(rows, WindowConfig(size=40), transform=Augment(), zoom=(0.7, 1.4))
    here = as_lists(DataLoader(dataset, batch_size=4, collate_fn=collate))
    assert dataset._reader._handles  # open, and now to be left alone by the workers
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=2,
        collate_fn=collate,
        multiprocessing_context="fork",
    )
    there = as_lists(loader)
    assert len(here) == len(there) == 8 * 4
    for (a, b, c), (d, e, f) in zip(here, there, strict=True):
        assert torch.equal(a, d) and torch.equal(b, e) and c == f
    assert as_lists(DataLoader(dataset, batch_size=4, collate_fn=collate))[0][2] == here[0][2]


def test_a_dataset_is_pickled_without_its_open_files(tiff):
    """As workers get it that are spawned."""
    dataset = WindowDataset(tiff, WindowConfig(size=100), transform=Augment())
    image = dataset[0][0]
    again = pickle.loads(pickle.dumps(dataset))
    assert not again._reader._handles
    assert torch.equal(again[0][0], image)


def test_an_item_follows_from_seed_index_and_epoch_alone(tiff):
    def make(seed=5):
        transform = Augment()
        return WindowDataset(
            tiff, WindowConfig(size=100), transform=transform, zoom=(0.5, 2), mosaic=0.5, seed=seed
        )

    dataset = make()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = dataset[3]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    again = make()[Draw(3, 0)]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert not torch.equal(first[0], dataset[Draw(3, 1)][0])
    assert not torch.equal(first[0], make(seed=6)[3][0])


def test_any_transform_of_torchvision_fits(tiff):
    plain = WindowDataset(tiff, WindowConfig(size=None))
    flipped = WindowDataset(tiff, WindowConfig(size=None), transform=v2.RandomHorizontalFlip(1))
    (image, target), (mirrored, its) = plain[0], flipped[0]
    assert type(mirrored) is torch.Tensor and type(its["boxes"]) is torch.Tensor
    assert torch.equal(mirrored, image.flip(2))
    x0, y0, x1, y1 = target["boxes"].unbind(1)
    assert torch.equal(its["boxes"], torch.stack([300 - x1, y0, 300 - x0, y1], 1))
    corner = WindowDataset(tiff, WindowConfig(size=None), transform=v2.CenterCrop((60, 60)))
    image, target = corner[0]  # of three boxes one reaches into the middle
    assert image.shape == (3, 60, 60) and target["boxes"].tolist() == [[0, 20, 10, 50]]
    assert target["labels"].tolist() == [0]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_zoomed_windows_show_what_their_boxes_say(squares, seed):
    for kind, size in ((WindowDataset, 80), (RandomCropDataset, 80)):
        config = WindowConfig(size=size, min_visible=0, min_side=3)
        dataset = kind(squares, config, zoom=(0.5, 2.0), seed=seed)
        image, target = dataset[seed % len(dataset)]
        assert image.shape == (3, 80, 80)
        white = image[0] > 0.5
        for x0, y0, x1, y1 in target["boxes"].round().int().tolist():
            assert white[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].all()
            white[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = False
        assert not white[4:-4, 4:-4].any()  # what is left are slivers at the border


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """White squares of 20 px on noise, 240×200 px."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 60, (3, 200, 240), np.uint8)
    places = rng.permutation([(x, y) for x in range(8, 215, 34) for y in range(8, 175, 34)])[:22]
    rows = []
    for x, y in places:
        pixels[:, y : y + 20, x : x + 20] = 255
        rows.append(("squares.png", [x, y, x + 20, y + 20], "Square"))
    write(root / "squares.png", pixels, driver="PNG")
    return frame(root, rows)


def test_crops_lie_near_boxes_and_in_their_regions(tmp_path):
    write(tmp_path / "wide.tif", coordinates(1000, 100))
    rows = frame(tmp_path, [("wide.tif", [900, 40, 920, 60], "x")])
    near = WindowConfig(size=50, near_box=1.0, per_epoch=60)
    for _, target in RandomCropDataset(rows, near):
        x, _, _, _ = target["window"]
        assert 860 <= x <= 910 and len(target["boxes"]) <= 1
    starts = [
        t["window"][0] for _, t in RandomCropDataset(rows, near.model_copy(update={"near_box": 0}))
    ]
    assert min(starts) < 150 and max(starts) > 800
    left = {"wide.tif": [(0, 0, 300, 100)]}
    for _, target in RandomCropDataset(rows, near, regions=left):
        assert target["window"][0] + 50 <= 300


def test_crops_are_drawn_by_area_or_by_weight(tmp_path):
    rows = folder_of_rasters(tmp_path, 1, size=40)
    write(tmp_path / "large.tif", coordinates(120, 120))
    rows = frame(tmp_path, [("0.tif", [5, 5, 25, 25], "x"), ("large.tif", [5, 5, 25, 25], "x")])

    def share(**settings):
        dataset = RandomCropDataset(rows, WindowConfig(size=40, **settings))
        drawn = [target["image_path"] for _, target in dataset]
        return len(drawn), drawn.count("0.tif") / len(drawn)

    assert share()[0] == 10  # as many as cover 40² and 120² once
    assert share(per_epoch=300)[1] == pytest.approx(0.1, abs=0.06)
    weights = {"0.tif": 3, "large.tif": 1}
    assert share(per_epoch=300, weights=weights)[1] == pytest.approx(0.75, abs=0.08)
    with pytest.raises(TrainingError, match=r"names other\.tif, which has no annotations"):
        share(weights={"other.tif": 1})


def test_what_is_wrong_with_annotations_is_said(tmp_path):
    write(tmp_path / "a.tif", coordinates(40, 40))
    good = ("a.tif", [1, 1, 9, 9], "x")
    with pytest.raises(AnnotationError, match=r"Row 1 .*has a box without area"):
        WindowDataset(frame(tmp_path, [good, ("a.tif", [5, 5, 5, 9], "x")]))
    with pytest.raises(AnnotationError, match=r"Row 1 .*has a box without a label"):
        WindowDataset(frame(tmp_path, [good, ("a.tif", [5, 5, 8, 9], None)]))
    with pytest.raises(AnnotationError, match=r"Row 0 .*a label that is not among y, z"):
        WindowDataset(frame(tmp_path, [good]), labels=["y", "z"])
    with pytest.raises(AnnotationError, match="no column 'label'"):
        WindowDataset(frame(tmp_path, [good]).drop(columns="label"))
    with pytest.raises(AnnotationError, match="nothing to train on"):
        WindowDataset(frame(tmp_path, [good]).iloc[:0])
    with pytest.raises(RasterError, match=r"missing\.tif does not exist"):
        WindowDataset(frame(tmp_path, [("missing.tif", [1, 1, 9, 9], "x")]))


def test_a_raster_cut_short_is_named(tmp_path):
    path = write(tmp_path / "short.tif", coordinates(400, 400), compress="deflate")
    dataset = WindowDataset(frame(tmp_path, [("short.tif", [1, 1, 9, 9], "x")]))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RasterError, match=r"short\.tif can't be read"):
        dataset[0]


def test_real_imagery_as_labelled():
    rows = read_annotations(deepforest_data() / "OSBS_029.csv")
    ((image, target),) = list(WindowDataset(rows))
    assert image.shape == (3, 400, 400) and len(target["boxes"]) == 61
    with rasterio.open(deepforest_data() / target["image_path"]) as source:
        assert torch.equal(image, torch.from_numpy(source.read((1, 2, 3))).float() / 255)
    boxes = rows[["xmin", "ymin", "xmax", "ymax"]].to_numpy(np.float32)
    assert np.array_equal(target["boxes"].numpy(), boxes)
