"""Detectors learn, are kept as they are, and go on where they stopped."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from geosweep.catalog.errors import GeosweepError, ModelError, TrainingError
from geosweep.models import (
    DetectorModule,
    DetectorTraining,
    TrainedDetector,
    load_detector,
    model_info,
    train_detector,
)
from geosweep.models._annotations import deepforest_data
from geosweep.models._architectures import ARCHITECTURES
from geosweep.models._checkpoints import load_checkpoint
from geosweep.models.training._detectionmetric import DetectionMetric
from geosweep.models.training._transfer import transfer
from geosweep.models.training.detector import prepare
from geosweep.models.training.optimizer import make_optimizer, rate
from geosweep.models.training.trainer import make_trainer

WEIGHTS = Path(__file__).parents[3] / "models" / "weights" / "geosweep-tree.safetensors"
TINY = {
    "singleshot": {
        "channels": 16,
        "strides": [8],
        "anchor_sizes": [[16, 32, 64]],
        "head_convs": 1,
        "detections_per_image": 100,
    },
    "retinanet": {"min_size": 96, "max_size": 96, "detections_per_image": 100},
    "fasterrcnn": {"min_size": 96, "max_size": 96, "detections_per_image": 100},
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Many short trainings at a time fight over cores when each takes all of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def boxes(tmp_path):
    """Two labels on a small piece of real imagery: a CSV beside its picture."""
    import rasterio

    with rasterio.open(deepforest_data() / "OSBS_029.tif") as source:
        pixels = source.read((1, 2, 3))[:, :128, :128]
    profile = {"driver": "PNG", "width": 128, "height": 128, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.png", "w", **profile) as target:
        target.write(pixels)
    rows = ["image_path,xmin,ymin,xmax,ymax,label"]
    rows += [f"a.png,{x},{x // 2},{x + 24},{x // 2 + 30},{'ZB'[x % 2]}" for x in (3, 40, 71, 96)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "a.csv"


def small(boxes, tmp_path, architecture="singleshot", **trainer):
    return {
        "model": {
            "architecture": architecture,
            "network": TINY[architecture],
            "backbone_weights": None,
            "score_threshold": 0.0,
        },
        "data": {
            "train": str(boxes),
            "val": str(boxes),
            "windows": {"size": 96, "overlap": 0.5},
            "augment": None,
            "batch_size": 2,
        },
        "trainer": {
            "output": str(tmp_path / "out"),
            "max_epochs": 1,
            "accelerator": "cpu",
            "progress": False,
            **trainer,
        },
    }


def look(detector, seed=0):
    image = np.random.default_rng(seed).integers(0, 255, (1, 3, 96, 96), np.uint8)
    return detector.detect(image)[0]


def same(a, b):
    assert len(a) == len(b) > 0
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("architecture", TINY)
def test_one_epoch_on_real_imagery_and_the_same_boxes_after_a_reload(architecture, tmp_path):
    data = deepforest_data()
    config = small(data / "OSBS_029.csv", tmp_path, architecture)
    config["data"]["windows"] = {"size": None}
    config["optimizer"] = {"name": "sgd", "momentum": 0}  # no state: the checkpoints are smaller
    data_module, module = prepare(DetectorTraining.of(config))
    trainer = make_trainer(DetectorTraining.of(config).trainer)
    trainer.fit(module, datamodule=data_module)
    assert trainer.global_step == 1
    before = look(module.detector())
    path = module.save(tmp_path / "model.safetensors")
    same(look(load_detector(path, device="cpu", threads=2)), before)
    same(look(load_detector(tmp_path / "out/checkpoints/last.ckpt", device="cpu")), before)
    same(look(DetectorModule.load(path).detector()), before)
    info = model_info(path)
    assert info.labels == ("Tree",)
    assert info.architecture == ARCHITECTURES[architecture].revision


def test_all_that_predictions_need_is_in_the_file(boxes, tmp_path):
    config = small(boxes, tmp_path)
    config["model"] |= {"score_threshold": 0.37, "nms_iou": 0.21, "gsd": 0.25, "licence": "CC0"}
    trained = train_detector(config)
    for path in (trained.path, tmp_path / "out/checkpoints/best.ckpt"):
        info = model_info(path)
        assert (info.score_threshold, info.nms_iou) == (0.37, 0.21)
        assert info.labels == ("B", "Z") == trained.labels
        assert (info.window_size, info.gsd, info.licence) == (96, 0.25, "CC0")
        detector = load_detector(path, device="cpu")
        assert (detector.network.score_thresh, detector.network.nms_thresh) == (0.37, 0.21)
    assert info.metrics.keys() >= {"val_ap40", "val_ap50", "val_f1"}
    assert trained.metrics == model_info(trained.path).metrics
    stored = yaml.safe_load((tmp_path / "out/training.yaml").read_text())
    assert DetectorTraining.of(stored).model.nms_iou == 0.21
    same(
        look(load_detector(trained.path, device="cpu", score_threshold=0.0)),
        look(
            load_detector(tmp_path / "out/checkpoints/best.ckpt", device="cpu", score_threshold=0)
        ),
    )


def test_half_the_size_for_a_small_error(boxes, tmp_path):
    _, module = prepare(DetectorTraining.of(small(boxes, tmp_path)))
    whole, half = module.save(tmp_path / "whole"), module.save(tmp_path / "half", half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    a, b = (look(load_detector(path, device="cpu")) for path in (whole, half))
    assert abs(a.scores[0] - b.scores[0]) < 1e-2


def test_other_backbones_and_other_names(boxes, tmp_path):
    config = small(boxes, tmp_path)
    config["model"]["network"] = {**TINY["singleshot"], "backbone": "resnet18"}
    config["data"]["labels"] = ["Z", "B"]
    trained = train_detector(config)
    assert load_detector(trained.path, device="cpu").labels == ("Z", "B")


def test_a_network_of_ones_own_keeps_its_labels(tmp_path):
    from torchvision.models.detection import RetinaNet

    class Backbone(torch.nn.Sequential):
        out_channels = 8

    def network():
        torch.manual_seed(3)
        return RetinaNet(
            Backbone(torch.nn.Conv2d(3, 8, 3, 8), torch.nn.ReLU()), 2, min_size=96, max_size=96
        )

    from torchvision.models.detection.anchor_utils import AnchorGenerator

    def fitting():
        net = network()
        net.anchor_generator = AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),))
        net.head = type(net.head)(8, 3, 2)
        return net

    module = DetectorModule(fitting(), ["Oak", "Ash"], score_threshold=0.0)
    path = module.save(tmp_path)
    again = DetectorModule.load(path, network=fitting())
    assert again.labels == ("Oak", "Ash")
    same(look(module.detector()), look(again.detector()))
    with pytest.raises(ModelError, match=r"architecture custom.*DetectorModule\.load"):
        load_detector(path)


def test_goes_on_after_a_stop_as_if_there_had_been_none(boxes, tmp_path):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    def config(name):
        content = small(boxes, tmp_path, ema_decay=0.8, max_epochs=3)
        content["data"]["augment"] = {}
        content["trainer"]["output"] = str(tmp_path / name)
        return content

    train_detector(config("whole"))
    train_detector(config("parts"), callbacks=[Stop()])
    assert load_checkpoint(tmp_path / "parts/checkpoints/last.ckpt")["epoch"] == 0
    train_detector(config("parts"), resume=True)
    a, b = (load_checkpoint(tmp_path / f"{n}/checkpoints/last.ckpt") for n in ("whole", "parts"))
    assert a["epoch"] == b["epoch"] == 2 and a["global_step"] == b["global_step"]
    for part in ("state_dict", "current_model_state"):
        for key, value in a[part].items():
            assert torch.equal(value, b[part][key]), (part, key)


def test_the_average_is_kept_with_its_buffers(boxes, tmp_path):
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append({k: v.detach().clone() for k, v in module.model.state_dict().items()})

    trained = train_detector(
        small(boxes, tmp_path, ema_decay=0.7, max_epochs=2), callbacks=[Watch()]
    )
    average = seen[0]
    for state in seen[1:]:
        average = {k: 0.7 * v + 0.3 * state[k] for k, v in average.items() if v.is_floating_point()}
    last = load_checkpoint(tmp_path / "out/checkpoints/last.ckpt")["state_dict"]
    for key, value in average.items():
        torch.testing.assert_close(last[f"model.{key}"], value, rtol=1e-4, atol=1e-6)
    assert any("running_mean" in key for key in average)
    assert trained.path.is_file()


def test_the_best_checkpoint_is_kept(boxes, tmp_path):
    class Worse(Callback):
        """A figure that gets worse with every epoch."""

        def on_validation_epoch_end(self, trainer, module):
            self.log("val_made_up", 1 / (1 + trainer.current_epoch))

    config = small(boxes, tmp_path, max_epochs=2, monitor="val_made_up")
    trained = train_detector(config, callbacks=[Worse()])
    assert trained.metrics["val_made_up"] == 1
    best = load_checkpoint(tmp_path / "out/checkpoints/best.ckpt")
    assert best["epoch"] == 0
    same(
        look(load_detector(trained.path, device="cpu")),
        look(load_detector(tmp_path / "out/checkpoints/best.ckpt", device="cpu")),
    )


def test_ends_early_or_by_the_clock(boxes, tmp_path):
    # A monitored figure that never gets better than in the first epoch.
    config = small(
        boxes, tmp_path, max_epochs=9, early_stopping_patience=1, monitor="val_recall", mode="max"
    )
    config["optimizer"] = {"lr": 1e-12}
    config["model"]["score_threshold"] = 1.0
    train_detector(config)
    assert load_checkpoint(tmp_path / "out/checkpoints/last.ckpt")["epoch"] == 1
    config = small(boxes, tmp_path / "b", max_epochs=None, max_minutes=0.01)
    rates = []

    class Rates(Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trained = train_detector(config, callbacks=[Rates()])
    assert rates[-1] < 0.5 * max(rates)
    assert "val_ap40" in trained.metrics  # also where the end came between two validations


def test_the_rate_warms_up_and_falls():
    assert rate(0.0, 0.1) < 0.05
    assert rate(0.1, 0.1) == pytest.approx(1.0)
    assert rate(0.55, 0.1) == pytest.approx(0.5)
    assert rate(1.0, 0.1) == pytest.approx(0.0)
    assert rate(0.0, 0.0) == 1.0


def test_backbone_and_norms_are_groups_of_their_own(boxes, tmp_path):
    config = small(boxes, tmp_path)
    config["optimizer"] = {"lr": 0.01, "backbone_lr": 0.001, "weight_decay": 0.1}
    training = DetectorTraining.of(config)
    _, module = prepare(training)
    optimizer = make_optimizer(module, training.optimizer, ("model.backbone.body.",))
    groups = {
        (g["lr"], g["weight_decay"]): sum(p.numel() for p in g["params"])
        for g in optimizer.param_groups
    }
    assert set(groups) == {(0.01, 0.1), (0.01, 0.0), (0.001, 0.1), (0.001, 0.0)}
    body = sum(p.numel() for p in module.model.backbone.body.parameters())
    assert groups[0.001, 0.1] + groups[0.001, 0.0] == body
    assert sum(groups.values()) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("architecture", TINY)
def test_known_labels_keep_their_scores(architecture):
    kind = ARCHITECTURES[architecture]
    torch.manual_seed(1)

    def build(classes):
        config = kind.config.from_dict({**TINY[architecture], "num_classes": classes})
        net = kind.build(config, score_threshold=0.0, nms_iou=0.5).eval()
        for layer in ("head.classification_head.cls_logits", "roi_heads.box_predictor.cls_score"):
            if layer in dict(net.named_modules()):
                torch.nn.init.normal_(net.get_submodule(layer).weight, std=0.1)
        return net

    old, new = build(2), build(3)
    transfer(old, new, ("Ash", "Oak"), ("Oak", "Elm", "Fir"))
    image = [torch.rand(3, 96, 96)]
    captured = {}

    def scores(net, name):
        target = {
            "singleshot": "head",
            "retinanet": "head",
            "fasterrcnn": "roi_heads.box_predictor",
        }[architecture]
        handle = net.get_submodule(target).register_forward_hook(
            lambda _m, _i, out: captured.__setitem__(name, out)
        )
        with torch.inference_mode():
            net(image)
        handle.remove()
        out = captured[name]
        return out["cls_logits"] if isinstance(out, dict) else out[0]

    before, after = scores(old, "old"), scores(new, "new")
    first = 1 if architecture == "fasterrcnn" else 0
    torch.testing.assert_close(after[..., first], before[..., first + 1])
    if first:
        torch.testing.assert_close(after[..., 0], before[..., 0])


def test_other_labels_replace_the_layer_of_classes_and_say_so(boxes, tmp_path, caplog):
    config = small(boxes, tmp_path)
    config["model"] = {"start": "geosweep/tree"}
    with caplog.at_level(logging.INFO, logger="geosweep"):
        _, module = prepare(DetectorTraining.of(config))
    assert "layer of the classes is replaced for B, Z, new: B, Z" in caplog.text
    assert module.config.num_classes == 2
    tree = load_file(WEIGHTS)
    own = module.model.state_dict()
    key = "head.levels.0.boxes.2.weight"
    assert torch.equal(own[key], tree[key])
    assert module.score_threshold == 0.3 and module.nms_iou == 0.3
    # With the labels it knows, nothing is lost.
    config["data"]["labels"] = ["Tree"]
    boxes.write_text(boxes.read_text().replace("Z", "Tree").replace(",B", ",Tree"))
    _, module = prepare(DetectorTraining.of(config))
    same(look_low(module), look_low(load_detector("geosweep/tree", device="cpu")))


def look_low(model):
    if isinstance(model, TrainedDetector):
        model = load_detector(model.path, device="cpu")
    detector = model.detector() if isinstance(model, DetectorModule) else model
    return look(detector.with_thresholds(0.001, None))


def test_figures_agree_with_the_evaluation():
    from geosweep.models.evaluation import box_metrics

    rng = np.random.default_rng(5)
    metric = DetectionMetric(1, 0.5)
    found, scores, truths = [], [], []
    for _ in range(4):
        low = rng.uniform(0, 80, (12, 2))
        truth = np.concatenate([low, low + rng.uniform(8, 20, (12, 2))], 1).astype(np.float32)
        box = (truth + rng.normal(0, 2, truth.shape)).astype(np.float32)
        score = rng.uniform(0, 1, 12).astype(np.float32)
        found.append(box)
        scores.append(score)
        truths.append(truth[:9])
        metric.update(
            [
                {
                    "boxes": torch.tensor(box),
                    "scores": torch.tensor(score),
                    "labels": torch.zeros(12, dtype=torch.long),
                }
            ],
            [{"boxes": torch.tensor(truth[:9]), "labels": torch.zeros(9, dtype=torch.long)}],
        )
    result = metric.compute()
    for iou in (0.4, 0.5):
        wanted = box_metrics(found, scores, truths, iou=iou, score_threshold=0.5)
        assert result[f"ap{iou * 100:.0f}"] == pytest.approx(wanted.average_precision)
        if iou == 0.4:
            assert result["precision"] == pytest.approx(wanted.precision)
            assert result["recall"] == pytest.approx(wanted.recall)
            assert result["f1"] == pytest.approx(wanted.f1)
    each = [
        box_metrics(found, scores, truths, iou=0.4, score_threshold=s).f1
        for s in np.concatenate(scores)
    ]
    best = box_metrics(found, scores, truths, iou=0.4, score_threshold=result["best_score"]).f1
    assert best == pytest.approx(max(each))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer.max_epoch": 3}, r"unknown key 'trainer.max_epoch': did you mean 'max_epochs'"),
        ({"model.network": {"chanels": 8}}, r"unknown key 'chanels': did you mean 'channels'"),
        ({"model.network": {"num_classes": 3}}, r"num_classes follows from data\.labels"),
        ({"model.network": {"anchor_sizes": [[8]]}}, r"anchor_sizes has 1 levels and strides"),
        ({"model.score_threshold": "good"}, r"model\.score_threshold is 'good', but must be"),
        (
            {"model": {"start": "geosweep/tree", "architecture": "retinanet"}},
            r"architecture is settled by start",
        ),
        ({"model.backbone_weights": "none.pth"}, r"none\.pth: no such file"),
        ({"trainer.max_epochs": None}, r"training would never end"),
        ({"trainer.precision": "fp16"}, r"precision is fp16, which needs a GPU"),
        ({"trainer.strategy": "alone"}, r"No trainer for.*strategy alone"),
        ({"optimizer.lr": 1e12, "trainer.max_epochs": 5}, r"The loss is .* lower optimizer\.lr"),
    ],
)
def test_mistakes_are_one_sentence(boxes, tmp_path, change, message):
    with pytest.raises(GeosweepError, match=message) as error:
        train_detector(small(boxes, tmp_path), overrides=change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("architecture", ["singleshot", "retinanet"])
def test_mixed_precision_keeps_boxes_in_fp32(architecture, boxes, tmp_path):
    seen = []

    class Look(Callback):
        def on_validation_start(self, trainer, module):
            module.model.transform.register_forward_hook(lambda *_: seen.append(1))

        def on_validation_batch_end(self, trainer, module, *_):
            with trainer.precision_plugin.forward_context():
                found = module([torch.rand(3, 96, 96)])[0]
            assert found["boxes"].dtype == found["scores"].dtype == torch.float32
            # Rounded to bf16, coordinates near 90 would be multiples of a half.
            assert (found["boxes"] % 0.5 != 0).float().mean() > 0.5

    config = small(boxes, tmp_path, architecture, precision="bf16", max_steps=1)
    trained = train_detector(config, callbacks=[Look()])
    assert seen and trained.path.is_file()


def test_the_score_with_the_best_f1_on_demand(boxes, tmp_path):
    config = small(boxes, tmp_path)
    config["model"]["score_threshold"] = "best"
    trained = train_detector(config)
    assert model_info(trained.path).score_threshold == trained.metrics["val_best_score"]


def test_without_validation_the_last_weights_are_kept(boxes, tmp_path):
    config = small(boxes, tmp_path, ema_decay=0.5)
    del config["data"]["val"]
    trained = train_detector(config)
    assert trained.metrics == {}
    last = tmp_path / "out/checkpoints/last.ckpt"
    assert not last.with_name("best.ckpt").exists()
    same(look(load_detector(trained.path, device="cpu")), look(load_detector(last, device="cpu")))


def test_ctrl_c_ends_as_ctrl_c_and_can_be_resumed(boxes, tmp_path):
    import signal

    class Impatient(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_detector(small(boxes, tmp_path, max_epochs=2), callbacks=[Impatient()])
    assert signal.getsignal(signal.SIGINT) is before
    train_detector(small(boxes, tmp_path, max_epochs=2), resume=True)
    assert load_checkpoint(tmp_path / "out/checkpoints/last.ckpt")["epoch"] == 1


def test_goes_on_from_weights_of_deepforests_layout(boxes, tmp_path):
    """With the label it knows its boxes are kept; others come beside it."""
    import json

    from safetensors.torch import save_file

    from geosweep.models._retinanet import build_retinanet

    torch.manual_seed(2)
    network = build_retinanet(1)
    for layer in (network.head.classification_head.cls_logits,):
        torch.nn.init.normal_(layer.weight, std=0.05)
    folder = tmp_path / "deepforest"
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {"num_classes": 1, "label_dict": {"B": 0}, "score_thresh": 0.2, "nms_thresh": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    content = small(boxes, tmp_path)
    content["model"] = {"start": str(folder), "network": {"min_size": 96, "max_size": 96}}
    _, module = prepare(DetectorTraining.of(content))
    assert module.labels == ("B", "Z")
    assert (module.score_threshold, module.nms_iou) == (0.2, 0.1)
    own, theirs = module.model.state_dict(), network.state_dict()
    key = "head.classification_head.cls_logits.weight"
    assert torch.equal(own[key].reshape(9, 2, 256, 3, 3)[:, 0], theirs[key])
    assert torch.equal(own["backbone.body.conv1.weight"], theirs["backbone.body.conv1.weight"])


def test_the_stored_configuration_can_be_used_again(boxes, tmp_path):
    config = small(boxes, tmp_path, max_steps=1)
    config["model"] = {"start": "geosweep/tree"}
    config["data"]["augment"] = {}
    train_detector(config)
    stored = tmp_path / "out/training.yaml"
    again = train_detector(stored, overrides={"trainer.output": str(tmp_path / "b")})
    same(look_low(again), look_low(load_detector(tmp_path / "out", device="cpu")))


def test_any_logger_from_python(boxes, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path / "mine", name=None, version="x")
    train_detector(small(boxes, tmp_path, log_every=1), logger=logger)
    assert "train_loss" in (tmp_path / "mine/x/metrics.csv").read_text()
    assert not (tmp_path / "out/logs").exists()


def test_a_training_is_not_overwritten_by_mistake(boxes, tmp_path):
    config = small(boxes, tmp_path)
    with pytest.raises(TrainingError, match=r"There is no .*last\.ckpt to go on from"):
        train_detector(config, resume=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.safetensors").write_bytes(b"precious")
    with pytest.raises(TrainingError, match=r"holds a training already \(model\.safetensors\)"):
        train_detector(config)
    assert (tmp_path / "out/model.safetensors").read_bytes() == b"precious"
    assert train_detector(config, fast_dev_run=True).path is None
    assert (tmp_path / "out/model.safetensors").read_bytes() == b"precious"
    trained = train_detector(config, overwrite=True)
    assert load_detector(trained.path, device="cpu").labels == ("B", "Z")


def test_a_checkpoint_of_other_labels_is_refused(boxes, tmp_path):
    train_detector(small(boxes, tmp_path))
    boxes.write_text(boxes.read_text().replace("Z", "Q"))
    with pytest.raises(
        TrainingError, match=r"checkpoint is of labels B, Z, but the training has B"
    ):
        train_detector(small(boxes, tmp_path, max_epochs=2), resume=True)


def test_loggers(boxes, tmp_path):
    pytest.importorskip("tensorboard")
    train_detector(small(boxes, tmp_path, loggers=["csv", "tensorboard"], log_every=1))
    table = (tmp_path / "out/logs/csv/metrics.csv").read_text()
    assert "train_loss" in table and "val_ap40" in table
    assert list((tmp_path / "out/logs/tensorboard").glob("events.*"))


def test_the_packaged_detectors_configuration_is_valid():
    path = Path(__file__).parents[3] / "examples/tree.yaml"
    config = DetectorTraining.of(path, {"trainer.seed": 3})
    assert config.model.backbone_weights == "imagenet"
    assert config.trainer.seed == 3 and config.trainer.ema_decay == 0.99
    assert (
        config.model.network_config(1).to_dict() == ARCHITECTURES["singleshot"].config().to_dict()
    )
