"""DeepForest with weights made on the spot: our peer, and the boxes that we must reproduce."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision

LABELS = {"Bird": 1, "Tree": 0}
SCORE, NMS = 0.1, 0.05


def make_retinanet(folder: Path) -> Any:
    """DeepForest's RetinaNet with random weights, saved in `folder` and loaded again by DeepForest.

    Random heads find nothing, so they are scaled: several hundred boxes pass in a window.
    """
    from deepforest.models.retinanet import RetinaNetHub

    with _offline():
        torch.manual_seed(4)
        network = RetinaNetHub(num_classes=2, nms_thresh=NMS, score_thresh=SCORE, label_dict=LABELS)
        _spread(network)
        network.save_pretrained(str(folder))
    return load_retinanet(folder)


def load_retinanet(folder: Path) -> Any:
    """DeepForest's RetinaNet from where `make_retinanet` saved it, as DeepForest loads it."""
    from deepforest.models.retinanet import RetinaNetHub

    with _offline():
        return RetinaNetHub.from_pretrained(str(folder), nms_thresh=NMS, score_thresh=SCORE).eval()


def make_deepforest(network: Any, folder: Path) -> Any:
    """DeepForest's main object around that network."""
    from deepforest.main import deepforest

    model = deepforest(
        model=network,
        config_args={
            "num_classes": 2,
            "label_dict": LABELS,
            "nms_thresh": NMS,
            "score_thresh": SCORE,
            "accelerator": "cpu",
            "log_root": str(folder),
        },
    )
    model.set_labels(LABELS)
    model.create_trainer(logger=False, enable_progress_bar=False)
    return model


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """DeepForest fetches ImageNet weights for the backbone only to overwrite them: don't let it."""
    original = torchvision.models.detection.retinanet_resnet50_fpn

    def without_backbone(*args: Any, **options: Any) -> Any:
        return original(*args, **{**options, "weights_backbone": None})

    torchvision.models.detection.retinanet_resnet50_fpn = without_backbone
    try:
        yield
    finally:
        torchvision.models.detection.retinanet_resnet50_fpn = original


def _spread(network: Any) -> None:
    """Scale random last layers so that boxes and scores spread as a trained network's do."""
    heads = network.head.classification_head, network.head.regression_head
    image = torch.rand(3, 256, 256)
    for layer, head, std in (
        (heads[0].cls_logits, "cls_logits", 1.0),
        (heads[1].bbox_reg, "bbox_regression", 0.5),
    ):
        outputs = []
        hook = network.head.register_forward_hook(lambda m, i, o: outputs.append(o))  # noqa: B023
        with torch.inference_mode():
            network.eval()([image])
        hook.remove()
        with torch.no_grad():
            layer.weight *= std / outputs[0][head].std()
            layer.bias -= outputs[0][head].mean()
    torch.nn.init.constant_(heads[0].cls_logits.bias, -3)
