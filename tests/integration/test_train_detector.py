"""`geosweep train detector` as users run it: on real imagery, in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from geosweep.models import load_detector, train_detector, train_detector_on_ray
from geosweep.models._annotations import deepforest_data, load_labelled
from geosweep.models._checkpoints import load_checkpoint
from geosweep.models._tiled import detect_tiled
from geosweep.models.evaluation import box_metrics
from geosweep.pipeline.cli import app

SITE = "2019_YELL_2_541000_4977000_image_crop"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(tmp_path, **trainer):
    """A training of seconds on one labelled image."""
    annotations = str(deepforest_data() / "OSBS_029.csv")
    network = {"channels": 16, "strides": [8], "anchor_sizes": [[16, 32, 64]], "head_convs": 1}
    return {
        "model": {"network": network, "backbone_weights": None, "score_threshold": 0.0},
        "data": {
            "train": annotations,
            "val": annotations,
            "windows": {"size": 128},
            "batch_size": 4,
        },
        "trainer": {
            "output": str(tmp_path / "out"),
            "max_epochs": 1,
            "accelerator": "cpu",
            **trainer,
        },
    }


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(tiny(tmp_path)))
    return path


def command(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_fine_tuning_raises_average_precision_on_its_site(tmp_path):
    """Learn one half of a tile that geosweep/tree has never seen; the other half gets better, too."""
    image = load_labelled(deepforest_data() / f"{SITE}.png", deepforest_data() / f"{SITE}.xml")
    split = 640
    unseen = image.boxes[:, 0] >= split

    def precision(model, least_x):
        detector = load_detector(model, device="cpu", score_threshold=0.02, threads=2)
        pixels = np.ascontiguousarray(image.pixels[:, :, least_x:])
        found = detect_tiled(detector, pixels, overlap=100)
        truth = image.boxes[unseen] if least_x else image.boxes
        boxes = found.boxes + np.array([least_x, 0, least_x, 0], np.float32)
        return box_metrics([boxes], [found.scores], [truth]).average_precision

    trained = train_detector(
        {
            "model": {"start": "geosweep/tree"},
            "data": {
                "train": str(deepforest_data() / f"{SITE}.xml"),
                "train_regions": {f"{SITE}.png": [[0, 0, split, 1035]]},
                "windows": {"size": 256, "sampling": "crops", "per_epoch": 80},
                "augment": {"zoom": [0.85, 1.18]},
                "batch_size": 4,
            },
            "optimizer": {"lr": 3e-4, "backbone_lr": 1e-4, "warmup": 0.1},
            "trainer": {"output": str(tmp_path), "max_epochs": 1, "accelerator": "cpu"},
        }
    )
    assert precision(trained.path, 0) > precision("geosweep/tree", 0) + 0.02
    assert precision(trained.path, split) > precision("geosweep/tree", split) + 0.01


def test_a_training_from_the_command_line(config, tmp_path):
    fast = command("detector", config, "--fast-dev-run")
    assert fast.exit_code == 0, fast.output
    assert not (tmp_path / "out").exists()
    done = command("detector", config, "-o", tmp_path / "b", "--set", "trainer.max_steps=1")
    assert done.exit_code == 0, done.output
    assert "val_ap40" in done.output and "Tree" in done.output
    assert load_checkpoint(tmp_path / "b/checkpoints/last.ckpt")["global_step"] == 1
    assert load_detector(tmp_path / "b", device="cpu").labels == ("Tree",)
    again = command("detector", config, "-o", tmp_path / "b")
    assert again.exit_code == 2
    assert "holds a training already" in again.output and "Traceback" not in again.output


def test_a_batch_is_drawn(config, tmp_path):
    picture = tmp_path / "batch.png"
    done = command("detector", config, "--show-batch", picture)
    assert done.exit_code == 0, done.output
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 200
    assert not (tmp_path / "out").exists()


def test_a_learning_rate_is_found(config, tmp_path):
    small = ("--set", "data.batch_size=1", "--set", "trainer.max_steps=1")
    done = command("detector", config, "--find-lr", *small)
    assert done.exit_code == 0, done.output
    optimizer = load_checkpoint(tmp_path / "out/checkpoints/last.ckpt")["optimizer_states"][0]
    found = max(group["initial_lr"] for group in optimizer["param_groups"])
    assert 1e-6 < found < 0.3 and found != 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "trainer.epochs"], "must be KEY=VALUE"),
        (["--set", "trainer.max_epoch=3"], "did you mean 'max_epochs'"),
        (["--set", "data.train=none.csv"], "none.csv"),
        (["--resume"], "to go on from"),
        (["--ray", "2", "--find-lr"], "neither"),
    ],
)
def test_mistakes_are_one_sentence(config, arguments, message):
    done = command("detector", config, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output


def test_anchors_are_suggested():
    done = command("anchors", deepforest_data() / "OSBS_029.csv", "--k", 4)
    assert done.exit_code == 0, done.output
    network = yaml.safe_load(done.output[done.output.index("model:") :])["model"]["network"]
    assert [len(level) for level in network["anchor_sizes"]] == [2, 2]


def test_two_processes_train_one_detector(config, tmp_path):
    """Lightning starts the command a second time; both must end with the same weights."""
    settings = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.ema_decay=0.5"]
    options = [part for setting in settings for part in ("--set", setting)]
    run = subprocess.run(
        [sys.executable, "-m", "geosweep.pipeline", "train", "detector", str(config), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    stored = load_detector(tmp_path / "out", device="cpu").info
    assert stored.labels == ("Tree",) and "val_ap40" in stored.metrics
    last = load_checkpoint(tmp_path / "out/checkpoints/last.ckpt")
    # 16 windows in batches of 4, dealt out to two.
    assert last["global_step"] == 2
    assert run.stdout.count("val_ap40") == 1


@pytest.mark.ray
def test_ray_train(ray_cluster, tmp_path):
    trained = train_detector_on_ray(tiny(tmp_path), 2)
    assert load_detector(trained.path, device="cpu").labels == ("Tree",) == trained.labels
    assert "val_ap40" in trained.metrics
    assert load_checkpoint(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 2
