"""torchvision's Faster R-CNN on ResNet-50, with labels that count from 0 like everybody's here.

Ren et al., *Faster R-CNN*, 2015 (https://arxiv.org/abs/1506.01497).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

if TYPE_CHECKING:
    from torch import Tensor

    from ._netconfig import FasterRCNNConfig


class _FromZero(FasterRCNN):
    """Class 0 is torchvision's background: a label is one more inside than outside."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Any]] | None = None) -> Any:
        if targets is not None:
            targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        output: Any = super().forward(images, targets)
        if self.training:
            return output
        return [{**found, "labels": found["labels"] - 1} for found in output]


def build(config: FasterRCNNConfig, *, score_threshold: float, nms_iou: float) -> FasterRCNN:
    """Build the network with random weights."""
    norm = partial(FrozenBatchNorm2d, eps=1e-5) if config.norm == "frozen" else nn.BatchNorm2d
    body = resnet50(weights=None, norm_layer=norm)
    ratios = (config.aspect_ratios,) * len(config.anchor_sizes)
    return _FromZero(
        _resnet_fpn_extractor(body, trainable_layers=5),
        config.num_classes + 1,
        min_size=config.min_size,
        max_size=config.max_size,
        rpn_anchor_generator=AnchorGenerator(config.anchor_sizes, ratios),
        box_score_thresh=score_threshold,
        box_nms_thresh=nms_iou,
        box_detections_per_img=config.detections_per_image,
        box_fg_iou_thresh=config.fg_iou,
        box_bg_iou_thresh=config.bg_iou,
    )
