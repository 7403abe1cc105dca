"""Tile filters: scores that depend on the window alone, files, and who may pass for one."""

import copy

import numpy as np
import pytest
import torch

from geosweep.catalog.errors import ModelError
from geosweep.models import (
    TileFilter,
    TileVerdict,
    load_crop_model,
    load_detector,
    load_tile_filter,
    model_info,
)
from geosweep.models._tilenet import TileNet, TileNetConfig, window_logits
from geosweep.models._weights import read_header

SMALL = TileNetConfig(reduce=2, stride=8, hidden=8)


@pytest.fixture(scope="module")
def tiles():
    torch.manual_seed(0)
    return TileFilter(
        ("Tree", "Bird"),
        network=SMALL,
        empty_threshold=0.7,
        label_thresholds=(0.4, 0.6),
        window_size=96,
        gsd=0.1,
        details={"description": "a test", "metrics": {"lost": 0}},
        device="cpu",
    )


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 97, 90), np.uint8)


def test_scores_depend_on_the_window_alone(tiles, windows):
    together = tiles.scores(windows)
    assert together.shape == (5, 3) and together.dtype == np.float32
    assert ((together >= 0) & (together < 1)).all()
    assert len(np.unique(together)) > 3
    for threads in (1, 2, 3):
        other = copy.copy(tiles)
        other.threads = threads
        alone = [other.scores(windows[i : i + 1])[0] for i in (4, 2, 0, 1, 3)]
        np.testing.assert_array_equal(np.stack(alone), together[[4, 2, 0, 1, 3]])
    np.testing.assert_array_equal(tiles.scores(windows.astype(np.float32) / 255), together)
    assert tiles.scores(windows[:0]).shape == (0, 3)


@pytest.mark.parametrize("side", [1, 2, 15, 33])
def test_windows_of_any_size(tiles, side):
    scores = tiles.scores(np.zeros((1, 3, side, 40), np.uint8))
    assert np.isfinite(scores).all()


def test_a_network_that_is_sure_stays_below_one(windows):
    network = TileNet(1, SMALL)
    with torch.no_grad():
        network.logits.bias.fill_(200.0)
    tiles = TileFilter(["Tree"], network=network, empty_threshold=1.0, device="cpu")
    scores = tiles.scores(windows)
    assert (scores < 1).all() and (scores > 0.999).all()
    assert (tiles.judge(scores) == TileVerdict.OBJECTS).all()
    assert (tiles.judge(scores, empty_threshold=0.9) == TileVerdict.EMPTY_AND_OBJECTS).all()


def test_one_cell_is_enough_to_see_an_object():
    cells = torch.full((1, 3, 4, 5), -3.0)
    cells[0, 2] = 4
    assert window_logits(cells).tolist() == [[-3, -3, 4]]
    cells[0, 1, 2, 3], cells[0, 2, 2, 3] = 5, -6
    assert window_logits(cells).tolist() == [[-3, 5, -6]]


def test_a_window_is_seen_whole():
    """A change in the last pixels reaches the scores also where sizes are no multiples."""
    torch.manual_seed(1)
    network = TileNet(1, TileNetConfig(reduce=4, stride=8, hidden=8)).eval()
    image = torch.zeros(1, 3, 65, 67)
    changed = image.clone()
    changed[..., -1, -1] = 1
    with torch.inference_mode():
        assert not torch.equal(network.cells(image), network.cells(changed))


def test_saved_and_loaded_equal_to_the_bit(tiles, windows, tmp_path):
    path = tiles.save(tmp_path / "new" / "tiles.safetensors")
    loaded = load_tile_filter(path, device="cpu", threads=1)
    np.testing.assert_array_equal(loaded.scores(windows), tiles.scores(windows))
    assert loaded.labels == ("Tree", "Bird", "empty")
    assert (loaded.empty_threshold, loaded.label_thresholds) == (0.7, (0.4, 0.6))
    assert (loaded.window_size, loaded.gsd) == (96, 0.1)
    info = model_info(path)
    assert (info.kind, info.labels, info.empty_threshold) == ("tilefilter", loaded.labels, 0.7)
    assert (info.description, info.metrics) == ("a test", {"lost": 0})
    assert info.version == loaded.version and loaded.name == str(path)
    assert model_info(loaded).kind == "tilefilter"
    again = loaded.save(tmp_path / "again.safetensors")
    assert read_header(again).metadata == read_header(path).metadata
    assert again.read_bytes() == path.read_bytes()


def test_version_follows_what_changes_the_scores(tiles):
    torch.manual_seed(0)
    twin = TileFilter(("Tree", "Bird"), network=copy.deepcopy(tiles.network), device="cpu")
    assert twin.version == tiles.version
    other = copy.deepcopy(tiles.network)
    with torch.no_grad():
        other.logits.bias[0] += 1e-3
    assert TileFilter(("Tree", "Bird"), network=other, device="cpu").version != tiles.version
    assert (
        TileFilter(("Bird", "Tree"), network=tiles.network, device="cpu").version != tiles.version
    )


class Constant:
    """The least that passes for a tile filter."""

    name, version, labels = "constant", "1", ("Tree", "empty")
    empty_threshold, device = 0.5, "cpu"

    def scores(self, images):
        return np.full((len(images), 2), 0.25, np.float32)


class NoEmpty(Constant):
    labels = ("Tree", "Bird")


def test_a_user_s_own(tiles):
    mine = Constant()
    assert load_tile_filter(mine) is mine
    assert model_info(mine).kind == "tilefilter"
    made = load_tile_filter(f"{__name__}:Constant")
    assert made.scores(np.zeros((3, 3, 8, 8), np.uint8)).shape == (3, 2)
    assert model_info(f"{__name__}:Constant", "tilefilter").kind == "tilefilter"
    with pytest.raises(ModelError, match=r"then 'empty', not \('Tree', 'Bird'\)"):
        load_tile_filter(NoEmpty())
    with pytest.raises(ModelError, match="object: is no tile filter, it lacks name, version"):
        load_tile_filter(object())  # type: ignore[arg-type]


def test_other_kinds_are_told_apart(tiles, tmp_path):
    path = tiles.save(tmp_path / "tiles.safetensors")
    with pytest.raises(ModelError, match="is a tile filter, not a detector; name it under tile_"):
        load_detector(path)
    with pytest.raises(ModelError, match="is a tile filter, not a crop model"):
        load_crop_model(path)
    with pytest.raises(ModelError, match="alive-dead: is a crop model, not a tile filter"):
        load_tile_filter("geosweep/alive-dead")
    with pytest.raises(ModelError, match="no such weights file"):
        load_tile_filter(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match=r"saved as \.safetensors"):
        tiles.save(tmp_path / "tiles.pt")


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ("Tree", {}, "labels are 'Tree'"),
        ((), {}, r"labels are \(\)"),
        (("Tree", "Tree"), {}, "each once"),
        (("Tree", "empty"), {}, "without 'empty'"),
        (("Tree",), {"network": TileNet(2, SMALL)}, "2 foreground outputs, but there are 1"),
        (("Tree",), {"empty_threshold": 1.2}, "empty_threshold is 1.2"),
        (("Tree", "Bird"), {"label_thresholds": (0.1, 0.2, 0.3)}, "3 label thresholds for 2"),
        (("Tree",), {"device": "abacus"}, "device 'abacus' is unknown"),
    ],
)
def test_what_does_not_fit_is_named(labels, settings, message):
    with pytest.raises(ModelError, match=message):
        TileFilter(labels, **{"network": SMALL, "device": "cpu", **settings})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
        (np.zeros((1, 4, 8, 8), np.uint8), "three bands"),
        (np.zeros((1, 3, 0, 8), np.uint8), "expected"),
        (np.zeros((1, 3, 8, 8), np.uint16), "dtype"),
    ],
)
def test_images_that_are_none_are_named(tiles, images, message):
    with pytest.raises(ModelError, match=message):
        tiles.scores(images)
