"""Training a tile filter: what it should say of each cell, and that it finds empty ground."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn import functional as F

from geosweep.catalog.errors import AnnotationError, ModelError, TrainingError
from geosweep.models import TileVerdict, load_tile_filter, model_info, validate_tilefilter
from geosweep.models._tilenet import TileNet, TileNetConfig
from geosweep.models.data.config import WindowConfig
from geosweep.models.data.dataset import WindowDataset
from geosweep.models.training import train_tilefilter
from geosweep.models.training._tilecells import CellTargets, cell_loss, cell_targets
from geosweep.models.training._tilevalidation import (
    TileValidation,
    choose_on,
    objects_by_window,
)
from geosweep.models.training.tileconfig import TileFilterTraining, TileModel, TileThresholds
from geosweep.models.training.tilefilter import start_network
from tests.rasters import textured, write_raster

SIDE, WINDOW = 1400, 128


def scene(path, objects, seed):
    """Red discs in clusters on textured ground, and the file with their boxes."""
    rng = np.random.default_rng(seed)
    image = textured(SIDE, SIDE, seed=seed) * 0.35 + 60
    clusters = rng.uniform(150, SIDE - 150, (6, 2))
    rows = []
    for _ in range(objects):
        r = rng.uniform(6, 11)
        x, y = clusters[rng.integers(len(clusters))] + rng.uniform(-130, 130, 2)
        top, left, side = int(y - r), int(x - r), int(2 * r) + 2
        ys, xs = np.mgrid[top : top + side, left : left + side] + 0.5
        disc = (ys - y) ** 2 + (xs - x) ** 2 < r * r
        colour = np.array([190, 40, 40]) + rng.uniform(-20, 20, 3)
        image[:, top : top + side, left : left + side][:, disc] = colour[:, None]
        rows.append((path.name, x - r, y - r, x + r, y + r, "Disc"))
    write_raster(path, np.clip(image, 0, 255).astype(np.uint8), tiled=True)
    table = pd.DataFrame(rows, columns=["image_path", "xmin", "ymin", "xmax", "ymax", "label"])
    table.to_csv(path.with_suffix(".csv"), index=False)
    table.attrs["root_dir"] = str(path.parent)
    return table


def settings(folder, **trainer):
    return {
        "data": {
            "train": str(folder / "train.csv"),
            "val": str(folder / "val.csv"),
            "windows": {"size": WINDOW, "per_epoch": 240},
            # Colours are what tells discs from the ground here.
            "augment": {"zoom": [0.9, 1.1], "hue": 0, "saturation": 0, "blur": 0, "noise": 0},
            "batch_size": 12,
        },
        "model": {"reduce": 2, "stride": 8, "hidden": 16},
        "optimizer": {"lr": 0.01, "backbone_lr": 0.004},
        "trainer": {"output": str(folder / "out"), "loggers": [], "accelerator": "cpu", **trainer},
        "gsd": 0.1,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discs")
    scene(folder / "train.tif", 80, 1)
    scene(folder / "val.tif", 200, 2)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Layers are small here: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(folder, one_thread):
    return train_tilefilter(settings(folder, max_epochs=4))


def test_fresh_ground_keeps_its_objects_and_loses_its_empty_windows(trained, folder):
    frame = scene(folder / "fresh.tif", 400, 3)
    dataset = WindowDataset(frame, WindowConfig(size=WINDOW, overlap=0.05))
    found = validate_tilefilter(trained.tile_filter, dataset)
    dropped = trained.tile_filter.judge(found.scores) == TileVerdict.EMPTY
    assert found.objects.sum() == 400
    assert found.objects[dropped].sum() <= 0.005 * 400
    bare = ~dataset.positives
    assert 0.3 < bare.mean() < 0.9
    assert dropped[bare].mean() > 0.8


def test_report_is_what_the_threshold_does_on_the_validation_windows(trained, folder):
    chosen = trained.threshold
    assert chosen.objects == 200 and chosen.lost <= 1
    assert chosen.threshold == trained.tile_filter.empty_threshold
    assert 0 < trained.tile_filter.label_thresholds[0] <= 0.9
    table = pd.read_csv(folder / "val.csv")
    table.attrs["root_dir"] = str(folder)
    dataset = WindowDataset(table, WindowConfig(size=WINDOW))
    found = validate_tilefilter(trained.tile_filter, dataset)
    dropped = trained.tile_filter.judge(found.scores) == TileVerdict.EMPTY
    assert (dropped.sum(), len(dropped)) == (chosen.skipped, chosen.windows)
    assert found.objects[dropped].sum() == chosen.lost
    assert trained.speed_up is None and 0 < trained.seconds < 1


def test_file_holds_what_was_trained(trained):
    loaded = load_tile_filter(trained.path, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (4, 3, WINDOW, WINDOW), np.uint8)
    np.testing.assert_array_equal(loaded.scores(images), trained.tile_filter.scores(images))
    info = model_info(trained.path)
    assert info.labels == ("Disc", "empty")
    assert (info.window_size, info.gsd) == (WINDOW, 0.1)
    assert info.empty_threshold == trained.threshold.threshold
    assert info.metrics["validation"]["objects"] == 200


def test_training_goes_on_from_the_last_checkpoint_and_from_a_filter(trained, folder, tmp_path):
    more = settings(folder, max_epochs=5)
    with pytest.raises(TrainingError, match="holds a training already"):
        train_tilefilter(more)
    resumed = train_tilefilter(more, resume=True)
    assert resumed.path == trained.path
    start = start_network(
        TileModel(reduce=2, stride=8, hidden=16, init=str(resumed.path)), ["Disc"]
    )
    for name, value in resumed.tile_filter.network.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(start.state_dict()[name], value)
    with pytest.raises(TrainingError, match="to go on from"):
        train_tilefilter(more, overrides={"trainer.output": str(tmp_path)}, resume=True)


def test_a_dev_run_writes_nothing(folder, tmp_path):
    output = {"trainer.output": str(tmp_path / "out")}
    done = train_tilefilter(settings(folder), overrides=output, fast_dev_run=True)
    assert done.path is None and not (tmp_path / "out").exists()


# --- what the cells should say ---------------------------------------------------------------------


def target(*boxes, labels=None):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
    }


def test_cells_of_a_box_by_hand():
    # Cells of 10 px; the box holds the centres (15, 15) and (25, 15).
    present, touched = cell_targets([target((12, 11, 29, 19))], 1, (4, 5), 10)
    assert present[0, 0].int().tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    # Within half a cell of it: x from 7 to 34, y from 6 to 24.
    assert touched[0, 0].int().tolist() == [
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert torch.equal(present[0, 0], present[0, 1])


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 95), st.floats(0, 95), st.floats(0.5, 60), st.floats(0.5, 60),
            st.integers(0, 1),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_every_box_is_present_and_far_cells_are_bare(rows):
    boxes = [(x, y, min(x + w, 96), min(y + h, 96)) for x, y, w, h, _ in rows]
    labels = [row[-1] for row in rows]
    present, touched = cell_targets([target(*boxes, labels=labels)], 2, (6, 6), 16)
    assert not (present & ~touched).any()
    assert torch.equal(present[0, 2], present[0, 0] | present[0, 1])
    assert [bool(present[0, k].any()) for k in (0, 1, 2)] == [0 in labels, 1 in labels, bool(rows)]
    for row in range(6):
        for column in range(6):
            near = any(
                x0 < column * 16 + 24 and x1 > column * 16 - 8
                and y0 < row * 16 + 24 and y1 > row * 16 - 8
                for x0, y0, x1, y1 in boxes
            )  # fmt: skip
            assert near or not touched[0, 2, row, column]


def test_loss_by_hand_on_one_cell():
    cells = torch.tensor([0.3, -0.7]).view(1, 2, 1, 1)  # label, empty
    shown = torch.ones(1, 2, 1, 1, dtype=torch.bool)
    wanted = (F.softplus(torch.tensor(-0.3)) + F.softplus(torch.tensor(-0.7))) / 2
    assert cell_loss(cells, CellTargets(shown, shown)).item() == pytest.approx(wanted.item())
    wanted = (F.softplus(torch.tensor(0.3)) + F.softplus(torch.tensor(0.7))) / 2
    assert cell_loss(cells, CellTargets(~shown, ~shown)).item() == pytest.approx(wanted.item())
    # Touched only: says nothing.
    assert cell_loss(cells, CellTargets(~shown, shown)).item() == 0


def test_loss_falls_where_cells_are_right():
    present, touched = cell_targets([target((12, 11, 29, 19)), target()], 1, (4, 5), 10)
    right = torch.where(present, 9.0, -9.0)
    right[:, -1] *= -1  # empty where nothing is
    assert cell_loss(right, CellTargets(present, touched)) < 0.01
    assert cell_loss(-right, CellTargets(present, touched)) > 5
    # One wrong cell of an empty window weighs in blocks of all sizes, the whole window among them.
    wrong = right.clone()
    wrong[1, 0, 3, 3] = 9
    assert cell_loss(wrong, CellTargets(present, touched)) > 0.5


def test_each_object_is_counted_once(folder):
    table = pd.read_csv(folder / "val.csv")
    table.attrs["root_dir"] = str(folder)
    for overlap in (0.0, 0.05, 0.5):
        dataset = WindowDataset(table, WindowConfig(size=WINDOW, overlap=overlap))
        windows = [
            (t["image_path"], *t["window"]) for _, t in (dataset[i] for i in range(len(dataset)))
        ]
        assert objects_by_window(dataset, windows).sum() == len(table)


def test_thresholds_of_labels_are_given_or_chosen():
    scores = np.array([[0.2, 0.1, 0.95], [0.8, 0.1, 0.1], [0.3, 0.99, 0.2]], np.float32)
    validation = TileValidation(scores, np.array([[0, 0], [4, 0], [2, 3]]))
    chosen, labels = choose_on(validation, TileThresholds())
    assert labels == pytest.approx((0.3, 0.9))
    assert (chosen.skipped, chosen.lost, chosen.objects) == (1, 0, 9)
    assert chosen.threshold == pytest.approx(0.95)
    # Given as 0.1, a label is seen everywhere: nothing may be dropped.
    chosen, labels = choose_on(validation, TileThresholds(label=0.1))
    assert labels == (0.1, 0.1) and chosen.skipped == 0


def test_the_example_is_a_valid_configuration():
    example = Path(__file__).parents[3] / "examples" / "tilefilter.yaml"
    config = TileFilterTraining.of(example)
    assert config.data.windows.sampling == "crops" and config.compare == "geosweep/tree"


# --- where weights start -----------------------------------------------------------------------------


def test_the_detector_s_backbone_is_taken():
    torch.manual_seed(0)
    random = TileNet(1, TileNetConfig(stride=8))
    network = start_network(TileModel(stride=8, init="geosweep/tree"), ["Tree"])
    plain = start_network(TileModel(stride=8, init="imagenet"), ["Tree"])
    weights = [n.body.stem.conv.weight for n in (random, network, plain)]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    # Trained from ImageNet, it is still near it.
    assert F.cosine_similarity(weights[1].flatten(), weights[2].flatten(), dim=0) > 0.9
    assert start_network(TileModel(init=None), ["Tree"]).foreground == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": {"val": None}}, TrainingError, "the threshold is chosen on held-out ground"),
        ({"data": {"valid": 0.2}}, TrainingError, "unknown key 'data.valid': did you mean 'val'"),
        ({"model": {"stride": 7}}, TrainingError, "model.stride is 7"),
        ({"threshold": {"max_loss": 1.0}}, TrainingError, "threshold.max_loss is 1.0"),
        ({"data": {"windows": {"resolution": 0.2}}}, TrainingError, "leave gsd out"),
        ({"model": {"init": "geosweep/alive-dead"}}, ModelError, "no EfficientNet-Lite0 backbone"),
        ({"model": {"init": "a.b:c"}}, ModelError, "is an import path"),
        ({"data": {"train": "none.csv"}}, AnnotationError, r"none\.csv"),
    ],
)
def test_what_is_wrong_is_named(folder, tmp_path, change, error, message):
    config = settings(folder, output=str(tmp_path / "out"))
    for block, keys in change.items():
        config[block] = {**config[block], **keys} if block in config else keys
    with pytest.raises(error, match=message):
        train_tilefilter(config)


def test_validation_without_objects_is_refused(folder, tmp_path):
    write_raster(tmp_path / "bare.tif", textured(300, 300))
    (tmp_path / "bare.csv").write_text("image_path,xmin,ymin,xmax,ymax,label\nbare.tif,0,0,0,0,\n")
    config = settings(folder, output=str(tmp_path / "out"))
    config["data"]["val"] = str(tmp_path / "bare.csv")
    with pytest.raises(TrainingError, match="validation windows hold no object"):
        train_tilefilter(config)
    assert not (tmp_path / "out").exists()
