"""From 10,000 detections to what a crop classifier takes: ours against DeepForest's, without the network.

DeepForest 2.1 opens the raster once more, reads each box as a window of its own, and prepares it with
torchvision; ours cuts crops out of the windows that the detector saw. Both have the same boxes on the
same tiled GeoTIFF of real imagery, one process and one thread, and give the same tensors, which is
asserted. They run in turn; a figure is the median over the rounds of DeepForest's CPU time divided by
ours. What is counted:

- DeepForest, dataset: its `BoundingBoxDataset` under its data loader, to the last batch of tensors.
- DeepForest, predict: its `_predict_crop_model_` with a network that does nothing.
- geosweep, tensors: decoding all windows, cutting, and the float32 input (3, 224, 224) of each crop, one
  after the other, as the classifier takes them on a CPU.
- geosweep, packed: decoding, cutting and packing what a classifier on a GPU gets, which resizes there.
- The same without the decoding, which the detector needs anyway.

`python -m benchmarks.crops N` takes N detections and writes nothing.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks._results import save
from geosweep.models import CropModel
from geosweep.models._annotations import deepforest_data, load_labelled
from geosweep.models.crops import detection_bounds
from geosweep.pipeline.bands import select_bands
from geosweep.pipeline.crop_pack import CropPack
from geosweep.pipeline.detect import Found
from geosweep.pipeline.job import WindowSpec
from geosweep.pipeline.raster import RasterSource
from geosweep.pipeline.region import Region
from geosweep.pipeline.scene_crops import SceneCrops
from geosweep.pipeline.scene_reader import SceneReader
from geosweep.pipeline.stream import WindowBatch

TILE = "2019_YELL_2_528000_4978000_image_crop2"
COUNT, ROUNDS, CHUNK, JITTER = 10_000, 3, 64, 300
TOLERANCE = 2e-6
"""Of tensors, where 1 is a standard deviation of ImageNet's pixels: the rounding of float32."""


class Scene:
    """The tile on disk, and detections in its windows."""

    def __init__(self, folder: Path, count: int) -> None:
        image = load_labelled(deepforest_data() / f"{TILE}.png", deepforest_data() / f"{TILE}.xml")
        self.path = folder / "tile.tif"
        bands, height, width = image.pixels.shape
        layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        shape = {"count": bands, "height": height, "width": width, "dtype": "uint8"}
        with rasterio.open(self.path, "w", driver="GTiff", **shape, **layout) as target:
            target.write(image.pixels)
        with self.reader() as reader:
            self.found = _jittered(image.boxes, reader.header.grid, count)

    def reader(self) -> _Open:
        return _Open(self._source())

    def crops(self) -> SceneCrops:
        return SceneCrops(self._source, {}, {"cropmodel": 0})

    def _source(self) -> RasterSource:
        return RasterSource(str(self.path), select_bands(None, None, {}), threads=1)

    def frame(self) -> pd.DataFrame:
        """The detections as DeepForest has them."""
        boxes = self.found.boxes.astype(int)
        frame = pd.DataFrame(boxes, columns=["xmin", "ymin", "xmax", "ymax"])
        return frame.assign(image_path=self.path.name)


class _Open(SceneReader):
    def __init__(self, source: RasterSource) -> None:
        super().__init__(source, WindowSpec(), Region(None))

    def __enter__(self) -> _Open:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _jittered(boxes: np.ndarray, grid: Any, count: int) -> Found:
    """Real boxes moved about, each in a window that holds all of it."""
    rng = np.random.default_rng(0)
    corners = grid.offsets(np.arange(grid.count))
    chosen: list[np.ndarray] = []
    windows: list[int] = []
    while len(chosen) < count:
        box = boxes[rng.integers(len(boxes))] + np.tile(rng.integers(-JITTER, JITTER, 2), 2)
        inside = (corners <= box[:2]).all(axis=1) & (box[2:] <= corners + grid.size).all(axis=1)
        if inside.any() and (box[2:] - box[:2] >= 1).all():
            chosen.append(np.trunc(box))
            windows.append(int(np.flatnonzero(inside)[0]))
    order = np.argsort(windows, kind="stable")
    nothing = np.zeros(count)
    return Found(
        np.array(chosen, np.float32)[order],
        nothing.astype(np.int64),
        nothing.astype(np.float32),
        np.array(windows, np.int64)[order],
    )


def _chunks(scene: Scene, batches: Iterator[WindowBatch], header: Any) -> Iterator[list[Any]]:
    """Crops as the pipeline cuts them, some detections of a batch of windows at a time."""
    crops = scene.crops()
    for batch in batches:
        found = scene.found[np.isin(scene.found.window, batch.index)]
        for start in range(0, len(found), CHUNK):
            some = found[np.arange(start, min(start + CHUNK, len(found)))]
            yield crops.cut("cropmodel", some, batch, header).crops
    crops.close()


def ours(scene: Scene, use: Callable[[list[Any]], int]) -> int:
    """Decode, cut, and `use` the crops; gives the sum of what it gives."""
    with scene.reader() as reader:
        batches = reader.batches(8)
        return sum(use(crops) for crops in _chunks(scene, batches, reader.header))


def in_memory(scene: Scene) -> Callable[[Callable[[list[Any]], int]], int]:
    """The same with windows that are decoded already."""
    with scene.reader() as reader:
        header, batches = reader.header, list(reader.batches(8))
    return lambda use: sum(use(crops) for crops in _chunks(scene, iter(batches), header))


class _Nothing(nn.Module):
    """A network that costs nothing."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(batch), 2)


def deepforests(scene: Scene, folder: Path) -> dict[str, Callable[[], int]]:
    from deepforest.datasets.cropmodel import BoundingBoxDataset
    from deepforest.model import CropModel as TheirCropModel
    from deepforest.predict import _predict_crop_model_

    model = TheirCropModel()
    model.model = _Nothing()
    model.label_dict, model.numeric_to_label_dict = {"a": 0, "b": 1}, {0: "a", 1: "b"}
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    model.create_trainer(enable_model_summary=False, default_root_dir=str(folder), **quiet)

    def dataset() -> int:
        data = BoundingBoxDataset(scene.frame(), str(scene.path.parent), resize=[224, 224])
        return sum(len(batch) for batch in model.predict_dataloader(data))

    def predict() -> int:
        args = (model, model.trainer, scene.frame(), str(scene.path))
        return len(_predict_crop_model_(*args, is_single_model=True))

    return {"DeepForest, dataset": dataset, "DeepForest, predict": predict}


def check_equal(scene: Scene, model: CropModel) -> float:
    """The largest difference of some crops' tensors; assert that it is within the tolerance."""
    from deepforest.datasets.cropmodel import BoundingBoxDataset

    theirs = BoundingBoxDataset(scene.frame(), str(scene.path.parent), resize=[224, 224])
    mine: list[Any] = []
    ours(scene, lambda crops: mine.extend(crops) or 0)
    assert len(mine) == len(scene.found)
    bounds = detection_bounds(scene.found.boxes, 0, theirs._image_width, theirs._image_height)
    worst = 0.0
    for place in np.linspace(0, len(mine) - 1, min(300, len(mine))).astype(int):
        wide, high = bounds[place, 2:] - bounds[place, :2]
        assert mine[place].shape == (high, wide, 3)
        difference = model.prepare([mine[place]])[0] - theirs[place].numpy()
        worst = max(worst, float(np.abs(difference).max()))
    assert worst <= TOLERANCE, worst
    return worst


def timed(work: Callable[[], int]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {**spent, "result": float(result)}


def compare(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(Path(name), count)
        model = CropModel(2, model=_Nothing())
        difference = check_equal(scene, model)
        inputs = model._input()

        def tensors(crops: list[Any]) -> int:
            with torch.inference_mode():
                return sum(len(inputs.of_one(crop)[None]) for crop in crops)

        packs: list[int] = []

        def packed(crops: list[Any]) -> int:
            pack = CropPack.of(crops, model)
            packs.append(pack.nbytes)
            return len(pack.shapes)

        cached = in_memory(scene)
        ways: dict[str, Callable[[], int]] = {
            **deepforests(scene, Path(name)),
            "geosweep, tensors": lambda: ours(scene, tensors),
            "geosweep, packed": lambda: ours(scene, packed),
            "geosweep, tensors, windows decoded": lambda: cached(tensors),
            "geosweep, packed, windows decoded": lambda: cached(packed),
        }
        rounds = [{way: timed(work) for way, work in ways.items()} for _ in range(ROUNDS)]
    assert all(spent["result"] == count for turn in rounds for spent in turn.values())
    packs = packs[: len(packs) // (2 * ROUNDS)]
    return {
        "detections": count,
        "largest_difference": difference,
        "packed_bytes_per_crop": sum(packs) / count,
        "prepared_bytes_per_crop": 4 * 3 * 224 * 224,
        "ways": {way: _figures(rounds, way, count) for way in ways},
    }


def _figures(rounds: list[Any], way: str, count: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for unit in ("cpu", "wall"):
        spent = np.array([turn[way][unit] for turn in rounds])
        figures[f"{unit}_us_per_crop"] = float(np.median(spent)) / count * 1e6
        for peer in ("dataset", "predict"):
            theirs = np.array([turn[f"DeepForest, {peer}"][unit] for turn in rounds])
            figures[f"{unit}_ratio_to_{peer}"] = float(np.median(theirs / spent))
    return figures


def main(count: int | None = None) -> None:
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    result = compare(count or COUNT)
    console = Console(width=120)
    table = Table(title=f"{result['detections']:,} detections to a classifier's input, 1 thread")
    for column in ("", "CPU µs a crop", "wall µs", "× dataset, CPU", "× predict, CPU"):
        table.add_column(column, justify="right" if column else "left")
    for way, row in result["ways"].items():
        table.add_row(
            way,
            f"{row['cpu_us_per_crop']:.1f}",
            f"{row['wall_us_per_crop']:.1f}",
            f"{row['cpu_ratio_to_dataset']:.1f}",
            f"{row['cpu_ratio_to_predict']:.1f}",
        )
    console.print(table)
    console.print(
        f"largest difference of tensors {result['largest_difference']:.1e}; in the object store "
        f"{result['packed_bytes_per_crop']:,.0f} bytes a crop, "
        f"prepared {result['prepared_bytes_per_crop']:,}"
    )
    if count is not None:
        return
    packages = ("deepforest", "torch", "torchvision", "rasterio")
    content = {
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor(),
            "load": os.getloadavg()[1],
        },
        "versions": {name: version(name) for name in packages},
        "rounds": ROUNDS,
        **result,
    }
    save("crops", content)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
