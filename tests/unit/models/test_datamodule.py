"""Batches for Lightning: settled labels, one order for any number of workers, ground held out."""

import logging

import lightning
import numpy as np
import pytest
import rasterio
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from PIL import Image

from geosweep.catalog.errors import AnnotationError, OutputError, TrainingError
from geosweep.catalog.strict import checked
from geosweep.models._annotations import deepforest_data
from geosweep.models.data import (
    AugmentConfig,
    DataConfig,
    DetectionDataModule,
    WindowConfig,
    annotation_frame,
    show_batch,
    split_annotations,
)
from geosweep.models.data.datamodule import EpochSampler

SMALL = WindowConfig(size=50, overlap=0)


@pytest.fixture
def rows(tmp_path):
    """Three PNGs of 150×100 px with 5, 3 and no boxes."""
    rng = np.random.default_rng(0)
    paths, boxes, labels = [], [], []
    for name, count in (("a.png", 5), ("b.png", 3), ("c.png", 0)):
        Image.fromarray(rng.integers(0, 255, (100, 150, 3), np.uint8)).save(tmp_path / name)
        for i in range(count):
            paths.append(name)
            boxes.append([i * 28, 20 + i * 12, i * 28 + 24, 44 + i * 12])
            labels.append(("Oak", "Elm")[i % 2])
        if not count:
            paths.append(name)
            boxes.append([0] * 4)
            labels.append(None)
    return annotation_frame(paths, boxes, labels, root_dir=tmp_path)


def flat(loader):
    return [pair for batch in loader for pair in zip(*batch, strict=True)]


def test_batches_are_torchvisions(rows):
    data = DetectionDataModule(rows, 0.4, windows=SMALL, batch_size=5)
    assert data.labels == ("Elm", "Oak") and data.label_dict == {"Elm": 0, "Oak": 1}
    images, targets = next(iter(data.train_dataloader()))
    assert len(images) == len(targets) == 5
    for image, target in zip(images, targets, strict=True):
        assert image.shape == (3, 50, 50) and image.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1
        assert target["boxes"].shape == (len(target["labels"]), 4)
        assert set(target) == {"boxes", "labels", "image_path", "window"}


def test_labels_do_not_depend_on_the_order_of_rows(rows):
    assert DetectionDataModule(rows.iloc[::-1], windows=SMALL).labels == ("Elm", "Oak")
    data = DetectionDataModule(rows, labels=["Oak", "Ash", "Elm"], windows=SMALL)
    assert data.label_dict == {"Oak": 0, "Ash": 1, "Elm": 2}
    data.setup()
    with pytest.raises(AnnotationError, match="label that is not among Oak"):
        DetectionDataModule(rows, labels=["Oak"], windows=SMALL).setup()
    with pytest.raises(AnnotationError, match="no box, so there is no label"):
        DetectionDataModule(rows[rows["image_path"] == "c.png"])


def test_the_same_batches_for_any_number_of_workers(rows):
    def epochs(workers):
        data = DetectionDataModule(
            rows, windows=SMALL, augment=AugmentConfig(mosaic=0.3), num_workers=workers, seed=4
        )
        loader = data.train_dataloader()
        return [flat(loader) for _ in range(2)]

    alone, shared = epochs(0), epochs(2)
    for one, two in zip(alone, shared, strict=True):
        assert len(one) == len(two) == 18
        for (image, target), (other, its) in zip(one, two, strict=True):
            assert torch.equal(image, other) and torch.equal(target["boxes"], its["boxes"])
    order = [[(t["image_path"], t["window"]) for _, t in epoch] for epoch in alone]
    assert order[0] != order[1]


def test_every_window_once_over_the_processes_of_ddp(rows):
    data = DetectionDataModule(rows, windows=SMALL, seed=1)
    data.setup()
    halves = []
    for rank in (0, 1):
        sampler = DistributedSamplerWrapper(
            EpochSampler(data.train_dataset, 1), num_replicas=2, rank=rank, shuffle=False
        )
        sampler.set_epoch(3)
        halves.append(list(sampler))
    assert all(draw.epoch == 3 for half in halves for draw in half)
    assert sorted(draw.item for half in halves for draw in half) == list(range(18))


class Recorder(lightning.LightningModule):
    """Trains nothing, remembers which windows it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, _):
        self.seen.append([image.mean().item() for image in batch[0]])
        return self.weight * 0

    def validation_step(self, batch, _):
        self.validated += [(t["image_path"], t["window"]) for t in batch[1]]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(rows, folder, epochs, checkpoint=None):
    data = DetectionDataModule(
        rows, 0.4, windows=SMALL, augment=AugmentConfig(), batch_size=4, seed=2
    )
    module = Recorder()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module


def test_lightning_trains_on_it_and_goes_on_where_it_stopped(rows, tmp_path):
    whole = fit(rows, tmp_path, 3)
    steps = len(whole.seen) // 3
    assert whole.seen[:steps] != whole.seen[steps : 2 * steps]
    assert len(whole.validated) == 3 * len(set(whole.validated))
    fit(rows, tmp_path, 1)
    assert fit(rows, tmp_path, 3, tmp_path / "last.ckpt").seen == whole.seen[steps:]


def test_crops_and_blocks_from_a_configuration(tmp_path, rows):
    rows.drop(columns="geometry").to_csv(tmp_path / "rows.csv", index=False)
    config = checked(
        DataConfig,
        {
            "train": str(tmp_path / "rows.csv"),
            "windows": {"sampling": "crops", "size": 32, "per_epoch": 7},
            "augment": {"zoom": [0.9, 1.1]},
            "batch_size": 3,
        },
        "data.yaml",
        TrainingError,
    )
    data = DetectionDataModule.from_config(config, seed=9)
    found = flat(data.train_dataloader())
    assert len(found) == 7 and all(image.shape == (3, 32, 32) for image, _ in found)
    assert data.val_dataloader() == []
    with pytest.raises(TrainingError, match=r"unknown key 'windows\.sise': did you mean 'size'"):
        checked(DataConfig, {"train": "x", "windows": {"sise": 3}}, "data.yaml", TrainingError)


@pytest.mark.parametrize(
    "wrong",
    [{"val": 1.5}, {"val": 0}, {"split_by": "tile"}, {"labels": ["Oak", "Elm", "Oak"]}],
    ids=str,
)
def test_senseless_arguments_are_refused(rows, wrong):
    with pytest.raises(TrainingError):
        DetectionDataModule(rows, **wrong)


def test_training_and_validating_on_one_image_is_said(rows, caplog):
    DetectionDataModule(rows, rows[rows["image_path"] == "a.png"], windows=SMALL)
    assert "a.png is trained on and validated on" in caplog.text


def test_regions_divide_an_image_by_hand(rows, caplog):
    one = rows[rows["image_path"] == "a.png"]
    upper, lower = {"a.png": [(0, 0, 150, 50)]}, {"a.png": [(0, 50, 150, 100)]}
    data = DetectionDataModule(one, one, windows=SMALL, train_regions=upper, val_regions=lower)
    windows = [
        [target["window"] for _, target in flat(loader)]
        for loader in (data.train_dataloader(), data.val_dataloader())
    ]
    assert [sorted(side) for side in windows] == [
        [(x, y, 50, 50) for x in (0, 50, 100)] for y in (0, 50)
    ]
    ours = [r for r in caplog.records if r.name == "geosweep" and r.levelno >= logging.WARNING]
    assert not ours
    with pytest.raises(TrainingError, match=r"regions name b\.png, which has no annotations"):
        DetectionDataModule(one, train_regions={"b.png": [(0, 0, 9, 9)]}).setup()
    with pytest.raises(TrainingError, match="a share, which settles the regions"):
        DetectionDataModule(rows, 0.5, train_regions=upper)


def test_whole_images_are_held_out(rows):
    train, val = split_annotations(rows, 0.4, seed=0)
    assert not set(train.frame["image_path"]) & set(val.frame["image_path"])
    assert len(train.frame) + len(val.frame) == len(rows)
    assert val.frame.attrs["root_dir"] == rows.attrs["root_dir"]
    again = split_annotations(rows, 0.4, seed=0)[1]
    assert val.regions == again.regions
    seen = {tuple(split_annotations(rows, 0.4, seed=seed)[1].regions) for seed in range(12)}
    assert len(seen) > 1
    with pytest.raises(AnnotationError, match="one image"):
        split_annotations(rows[rows["image_path"] == "a.png"], 0.4)


@pytest.mark.parametrize("sampling", ["windows", "crops"])
def test_no_pixel_is_in_training_and_validation(rows, sampling):
    windows = WindowConfig(size=20, sampling=sampling)
    zoom = AugmentConfig(hue=0, saturation=0, blur=0, noise=0)
    data = DetectionDataModule(rows, 0.3, windows=windows, augment=zoom, split_by="block", seed=5)
    seen = {}
    for side, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        for _, target in flat(loader):
            key = (side, target["image_path"])
            x, y, width, height = target["window"]
            mask = seen.setdefault(key, np.zeros((100, 150), bool))
            mask[y : y + height, x : x + width] = True
    both = {path for side, path in seen if side == "train"} & {p for s, p in seen if s == "val"}
    assert both  # an image is divided, and its halves don't meet
    for path in both:
        assert not (seen["train", path] & seen["val", path]).any()
    held = sum(mask.sum() for (side, _), mask in seen.items() if side == "val")
    assert 0.05 < held / (3 * 15000) < 0.6


def test_images_of_the_same_ground_stay_together(tmp_path):
    paths = []
    for i, east in enumerate((0, 50, 100, 200, 300)):  # 0–2 overlap in a chain, 3 and 4 touch
        path = tmp_path / f"{i}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=100, height=100, count=3, dtype="uint8",
            crs="EPSG:32633", transform=rasterio.Affine(1, 0, 500000 + east, 0, -1, 5000000),
        ):  # fmt: skip
            paths.append(path.name)
    rows = annotation_frame(paths, [[1, 1, 9, 9]] * 5, ["x"] * 5, root_dir=tmp_path)
    sides = set()
    for by in ("image", "block"):
        for seed in range(8):
            train, val = split_annotations(rows, 0.4, by=by, seed=seed, windows=SMALL)
            for i in (1, 2):
                assert (f"{i}.tif" in train.regions) == ("0.tif" in train.regions)
                assert (f"{i}.tif" in val.regions) == ("0.tif" in val.regions)
            sides.add(("3.tif" in train.regions, "4.tif" in train.regions))
    assert len(sides) > 2


def test_a_batch_is_drawn(rows, tmp_path):
    data = DetectionDataModule(rows, windows=WindowConfig(size=None), batch_size=3)
    data.setup()
    images, targets = data.train_dataset[0], data.train_dataset[2]
    batch = [images[0], targets[0][:, :60, :80]], [images[1], targets[1]]
    picture = show_batch(batch, data.labels, tmp_path / "batch.png")
    with Image.open(tmp_path / "batch.png") as written:
        assert np.array_equal(np.asarray(written), picture.permute(1, 2, 0).numpy())
    # Every box's outline is in the picture, in the colour of its label, three times enlarged.
    pixels = picture.permute(1, 2, 0).reshape(-1, 3)
    for colour, count in (((242, 12, 205), 2), ((12, 242, 49), 3)):
        there = (pixels == torch.tensor(colour)).all(1).sum()
        assert there > count * 2 * (24 + 24) * 3


def test_a_batch_of_real_imagery_is_drawn_over_itself(tmp_path):
    data = DetectionDataModule(deepforest_data() / "OSBS_029.csv", batch_size=1)
    (image,), (target,) = batch = next(iter(data.train_dataloader()))
    picture = show_batch(batch, data.labels)
    tile = picture[:, -400:]
    untouched = torch.ones(400, 400, dtype=torch.bool)
    for x0, y0, x1, y1 in target["boxes"].int().tolist():
        untouched[max(y0 - 3, 0) : y1 + 4, max(x0 - 3, 0) : x1 + 4] = False
    assert untouched.sum() > 10000
    expected = (image * 255).round().to(torch.uint8)
    assert torch.equal(tile[:, untouched], expected[:, untouched])
    assert not torch.equal(tile, expected)
    with pytest.raises(OutputError, match=r"batch\.png can't be written: No such file"):
        show_batch(batch, data.labels, tmp_path / "nowhere" / "batch.png")
