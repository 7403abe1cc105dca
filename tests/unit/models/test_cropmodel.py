"""CropModel: DeepForest's transform and files, predictions per crop, Lightning training."""

import json
import subprocess
import sys

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision import models

from geosweep.catalog.errors import ModelError
from geosweep.models import CropModel, load_crop_model, model_info

SIZES = [(1, 1), (3, 40), (57, 31), (224, 224), (300, 260)]


def crops(sizes=SIZES, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for size in sizes]


def small(**kwargs):
    torch.manual_seed(0)
    return CropModel(
        label_dict={"Alive": 0, "Dead": 1}, model="resnet18", resize=(48, 48), **kwargs
    )


@pytest.mark.parametrize("resize", [[224, 224], [50, 70]])
def test_transform_is_deepforests(resize):
    peer = pytest.importorskip("deepforest.datasets.cropmodel")
    theirs = peer.bounding_box_transform(resize=resize)
    ours = CropModel(2, model="resnet18", resize=resize).get_transform()
    for crop in crops():
        found = ours(crop)
        assert found.dtype == torch.float32 and found.shape == (3, *resize)
        assert torch.equal(found, theirs(crop))


def test_transform_options():
    crop = crops([(20, 30)])[0]
    plain = small().get_transform()(crop)
    nearest = small(resize_interpolation="nearest").get_transform()(crop)
    assert len(np.unique(nearest)) <= crop.size < len(np.unique(plain))
    raw = small(normalize=((0, 0, 0), (1, 1, 1))).get_transform()(crop)
    assert raw.min() >= 0 and raw.max() <= 1
    torch.manual_seed(0)
    transform = small().get_transform(augment=True)
    seen = [torch.equal(transform(crop), plain) for _ in range(20)]
    assert any(seen) and not all(seen)
    flipped = next(t for t in iter(lambda: transform(crop), None) if not torch.equal(t, plain))
    assert torch.equal(flipped.flip(2), plain)


def test_prepare_and_classify():
    model = small().eval()
    batch = model.prepare(crops())
    assert batch.shape == (5, 3, 48, 48) and batch.dtype == np.float32
    scores = model.classify(batch)
    assert scores.shape == (5, 2) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)
    with torch.inference_mode():
        logits = model(torch.from_numpy(batch))
    np.testing.assert_allclose(scores, logits.softmax(1).numpy(), atol=1e-5)
    assert (model.labels, model.device_name, model.expand) == (("Alive", "Dead"), "cpu", 0)


def test_a_crop_does_not_depend_on_its_batch():
    model = small()
    batch = model.prepare(crops())
    together = model.classify(batch)
    for i in range(len(batch)):
        np.testing.assert_array_equal(model.classify(batch[i : i + 1])[0], together[i])


def test_classify_leaves_training_mode_alone():
    model = small().train()
    batch = model.prepare(crops())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    np.testing.assert_array_equal(model.classify(batch), model.eval().classify(batch))
    model.train().classify(batch)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_no_crops():
    model = small()
    assert model.prepare([]).shape == (0, 3, 48, 48)
    scores = model.classify(model.prepare([]))
    assert scores.shape == (0, 2) and scores.dtype == np.float32


def test_labels_are_ordered_by_index():
    model = CropModel(label_dict={"Dead": 1, "Alive": 0}, model="resnet18")
    assert model.labels == ("Alive", "Dead") and model.num_classes == 2
    assert CropModel(3, model="resnet18").labels == ("0", "1", "2")


def test_default_is_resnet50():
    network = CropModel(2).model
    assert sum(p.numel() for p in network.parameters()) == sum(
        p.numel() for p in models.resnet50(num_classes=2).parameters()
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((3,), {"label_dict": {"a": 0}}, "num_classes is 3, but label_dict names 1"),
        ((), {"label_dict": {"a": 0, "b": 2}}, "0, 1, 2"),
        ((2,), {"expand": -1}, "expand is -1"),
        ((2,), {"resize": (0, 4)}, r"resize is \(0, 4\)"),
        ((2,), {"resize_interpolation": "cubic"}, "bilinear or nearest"),
        ((2,), {"model": "alexnet"}, "alexnet.*can't be built by name"),
    ],
)
def test_arguments_that_do_not_fit(args, kwargs, message):
    with pytest.raises(ModelError, match=message):
        CropModel(*args, **{"model": "resnet18", **kwargs})


def test_without_classes_there_is_no_network_yet():
    with pytest.raises(ModelError, match="num_classes or label_dict"):
        CropModel()(torch.zeros(1, 3, 8, 8))


def coloured(count=48):
    """Reddish and greenish crops: a task that can be learned at once."""
    rng = np.random.default_rng(0)
    data = []
    for i in range(count):
        pixels = rng.integers(0, 90, (16, 16, 3), np.uint8)
        pixels[..., i % 2] += 120
        data.append((pixels, i % 2))
    return data


def test_trains_saves_and_loads_to_the_bit(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # quicker, for crops this small
    torch.manual_seed(0)
    model = CropModel(
        label_dict={"Red": 0, "Green": 1}, model="resnet18", resize=(32, 32), expand=2, lr=1e-3
    )
    untrained = model.version
    transform = model.get_transform(augment=True)
    data = [(transform(pixels), label) for pixels, label in coloured()]
    loader = DataLoader(data, batch_size=12, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, loader, DataLoader(data, batch_size=12))
    torch.set_num_threads(threads)
    assert trainer.callback_metrics["val_accuracy"] > 0.9
    assert model.version != untrained
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    batch = model.prepare([pixels for pixels, _ in coloured(8)])
    expected = model.classify(batch)
    assert (expected.argmax(1) == [0, 1] * 4).mean() > 0.8
    model.save_pretrained(tmp_path / "saved")
    for loaded in (
        CropModel.load_from_checkpoint(tmp_path / "a.ckpt"),
        CropModel.from_pretrained(tmp_path / "saved"),
        load_crop_model(tmp_path / "saved", device="cpu"),
        load_crop_model(tmp_path / "a.ckpt", device="cpu"),
        load_crop_model(tmp_path / "saved" / "model.safetensors", device="cpu"),
    ):
        assert (loaded.labels, loaded.expand, loaded.resize) == (("Red", "Green"), 2, (32, 32))
        assert not loaded.training
        np.testing.assert_array_equal(loaded.classify(batch), expected)
    changed = CropModel.load_from_checkpoint(tmp_path / "a.ckpt", expand=7)
    assert changed.expand == 7


def test_a_network_of_ones_own(tmp_path):
    def network():
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))

    model = CropModel(2, model=network(), resize=(8, 8))
    batch = model.prepare(crops())
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="model=network"):
        CropModel.from_pretrained(tmp_path)
    loaded = CropModel.from_pretrained(tmp_path, model=network())
    np.testing.assert_array_equal(loaded.classify(batch), model.classify(batch))


def deepforest_folder(folder, network, label_dict, **cropmodel):
    """What DeepForest publishes: its whole config, and keys with a prefix."""
    state = {f"model.{k}": v.contiguous() for k, v in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    config = {"workers": 0, "label_dict": {"Tree": 0}, "num_classes": 1, "batch_size": 1}
    config["cropmodel"] = {"label_dict": label_dict, "batch_size": 4, "lr": 1e-4, **cropmodel}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_deepforests_crop_models_load(tmp_path, architecture):
    torch.manual_seed(1)
    network = models.get_model(architecture, weights=None, num_classes=3).eval()
    labels = {"Oak": 2, "Pine": 0, "Fir": 1}
    deepforest_folder(
        tmp_path, network, labels, resize=[40, 60], resize_interpolation="nearest", expand=3
    )
    assert model_info(tmp_path).labels == ("Pine", "Fir", "Oak")
    model = load_crop_model(tmp_path, device="cpu")
    assert model.version == model_info(tmp_path).version
    assert (model.resize, model.resize_interpolation, model.expand) == ((40, 60), "nearest", 3)
    batch = model.prepare(crops())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as geosweep does: another number gives other last bits
    with torch.inference_mode():
        expected = torch.cat([network(torch.from_numpy(x[None])) for x in batch]).softmax(1)
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(model.classify(batch), expected.numpy())


def test_crop_weights_that_do_not_fit(tmp_path):
    network = models.resnet18(num_classes=2)
    del network.layer1[0].bn1
    deepforest_folder(tmp_path, network, {"a": 0, "b": 1})
    with pytest.raises(ModelError, match=r"missing \(such as layer1\.0\.bn1"):
        load_crop_model(tmp_path)
    deepforest_folder(tmp_path, models.resnet18(num_classes=5), {"a": 0, "b": 1})
    with pytest.raises(ModelError, match="another shape"):
        load_crop_model(tmp_path)


def test_alive_dead_tells_its_own_crops_apart():
    from geosweep.models import crop_bounds
    from geosweep.models._annotations import deepforest_data, load_labelled

    data = deepforest_data()
    image = load_labelled(data / "SOAP_061.png", data / "testfile_multi.csv")
    model = load_crop_model("geosweep/alive-dead", device="cpu")
    assert model.labels == ("Alive", "Dead")
    assert model.name == "geosweep/alive-dead"
    bounds = crop_bounds(image.boxes, model.expand, 400, 400)
    cut = [
        np.ascontiguousarray(np.moveaxis(image.pixels[:, y0:y1, x0:x1], 0, 2))
        for x0, y0, x1, y1 in bounds
    ]
    guess = model.classify(model.prepare(cut)).argmax(1)
    right = [model.labels[g] == label for g, label in zip(guess, image.labels, strict=True)]
    assert np.mean(right) > 0.9  # it was trained on these; cross-validation is in the card


def test_what_only_predicts_does_without_lightning():
    code = (
        "import json, sys, numpy as np; from geosweep.models import load_bare_crop_model;"
        "model = load_bare_crop_model('geosweep/alive-dead', device='cpu');"
        "rows = model.classify([np.full((30, 40, 3), 77, np.uint8)]);"
        "heavy = [m for m in ('lightning', 'torchmetrics') if m in sys.modules];"
        "print(json.dumps([model.version, rows.tolist(), heavy]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole = load_crop_model("geosweep/alive-dead", device="cpu")
    rows = whole.classify([np.full((30, 40, 3), 77, np.uint8)])
    assert json.loads(out.stdout) == [whole.version, rows.tolist(), []]
