"""The light single-shot detector: torchvision's RetinaNet on a backbone such as EfficientNet-Lite0.

Lin et al., *Focal Loss for Dense Object Detection*, 2017 (https://arxiv.org/abs/1708.02002).
Anchors, matching, box coding and per-class NMS are torchvision's; backbone, pyramid and head are
sized for a CPU, and images are taken at their own scale instead of being resized to 800 px.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, generalized_box_iou_loss, sigmoid_focal_loss

from ._architectures import SINGLESHOT
from ._backbones import build_backbone, normalization
from ._efficientnet import conv_bn
from ._netconfig import SingleShotConfig

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = SINGLESHOT


class _Pyramid(nn.Module):
    """A backbone under a feature pyramid; returns the levels in `strides` only."""

    def __init__(self, backbone: str, channels: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.body = build_backbone(backbone, tuple({*strides, 32}))
        self.fpn = FeaturePyramidNetwork(
            self.body.channels, channels, norm_layer=lambda c: nn.BatchNorm2d(c, eps=1e-3)
        )
        self.keep = tuple(str(s) for s in sorted(strides))
        for i, stride in enumerate(self.body.strides):
            if str(stride) not in self.keep:  # its context is used, its own output is not
                self.fpn.layer_blocks[i] = nn.Identity()
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        features = self.fpn(self.body(x))
        return OrderedDict((k, features[k]) for k in self.keep)


class LevelHead(nn.Module):
    """Class logits and box offsets for the anchors of one level."""

    def __init__(self, channels: int, anchors: int, classes: int, convs: int) -> None:
        super().__init__()

        def tower() -> list[nn.Module]:
            return [conv_bn(channels, channels, 3) for _ in range(convs)]

        # Batch norm, not group norm: its inference statistics are fixed, so that a tree's score
        # depends on its neighbourhood only and not on what else lies in the window.
        self.classes = nn.Sequential(*tower(), nn.Conv2d(channels, anchors * classes, 3, padding=1))
        self.boxes = nn.Sequential(*tower(), nn.Conv2d(channels, anchors * 4, 3, padding=1))
        self.num_classes = classes
        for module in (*self.classes.modules(), *self.boxes.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
        logits, offsets = self.classes[-1], self.boxes[-1]
        assert isinstance(logits, nn.Conv2d) and isinstance(offsets, nn.Conv2d)
        for layer in (logits, offsets):
            nn.init.normal_(layer.weight, std=0.01)
        assert logits.bias is not None and offsets.bias is not None
        nn.init.constant_(logits.bias, -math.log((1 - 0.01) / 0.01))
        nn.init.zeros_(offsets.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = self.classes(x), self.boxes(x)
        return per_anchor(logits, self.num_classes), per_anchor(offsets, 4)


def per_anchor(x: Tensor, values: int) -> Tensor:
    """(B, A·K, H, W) -> (B, H·W·A, K), the order of torchvision's anchors."""
    batch, _, height, width = x.shape
    return (
        x.view(batch, -1, values, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, values)
    )


class LevelHeads(nn.Module):
    """One head per level: anchor sizes are not proportional to the strides here."""

    def __init__(self, config: SingleShotConfig, anchors: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            LevelHead(config.channels, anchors, config.num_classes, config.head_convs)
            for _ in config.strides
        )
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.alpha, self.gamma = config.focal_alpha, config.focal_gamma

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        outputs = [level(x) for level, x in zip(self.levels, features, strict=True)]
        logits = torch.cat([o[0] for o in outputs], dim=1)
        offsets = torch.cat([o[1] for o in outputs], dim=1)
        return {"cls_logits": logits.float(), "bbox_regression": offsets.float()}

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        logits, offsets = head_outputs["cls_logits"], head_outputs["bbox_regression"]
        wanted = torch.zeros_like(logits)
        boxes, truth = [], []
        for i, (target, matched) in enumerate(zip(targets, matched_idxs, strict=True)):
            positive = matched >= 0
            which = matched[positive]
            wanted[i, positive, target["labels"][which]] = 1.0
            boxes.append(self.box_coder.decode_single(offsets[i, positive], anchors[i][positive]))
            truth.append(target["boxes"][which])
        used = torch.stack(matched_idxs) != Matcher.BETWEEN_THRESHOLDS
        # Over the batch, not per image: an empty image would else weigh as much as a full one.
        count = max(1, sum(len(b) for b in boxes))
        classification = sigmoid_focal_loss(
            logits[used], wanted[used], alpha=self.alpha, gamma=self.gamma, reduction="sum"
        )
        regression = generalized_box_iou_loss(torch.cat(boxes), torch.cat(truth), reduction="sum")
        return {"classification": classification / count, "bbox_regression": regression / count}


class OwnScale(GeneralizedRCNNTransform):
    """torchvision's normalisation and padding, of images at their own scale.

    torchvision's switch for that, `_skip_resize`, holds in training mode only: in eval mode it would
    still scale the shorter side to 800 px.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def build_singleshot(
    config: SingleShotConfig, *, score_threshold: float = 0.3, nms_iou: float = 0.5
) -> RetinaNet:
    """Build the network with random weights.

    Parameters
    ----------
    config
        Its shape.
    score_threshold, nms_iou
        Applied inside the network when it is in eval mode.

    Returns
    -------
    RetinaNet
        Takes a list of float (3, H, W) images in 0–1 at their own scale.
    """
    ratios = (config.aspect_ratios,) * len(config.anchor_sizes)
    anchors = AnchorGenerator(config.anchor_sizes, ratios)
    mean, std = normalization(config.backbone)
    network = RetinaNet(
        _Pyramid(config.backbone, config.channels, config.strides),
        config.num_classes,
        anchor_generator=anchors,
        head=LevelHeads(config, anchors.num_anchors_per_location()[0]),
        proposal_matcher=Matcher(config.fg_iou, config.bg_iou, allow_low_quality_matches=True),
        score_thresh=score_threshold,
        nms_thresh=nms_iou,
        detections_per_img=config.detections_per_image,
        topk_candidates=config.candidates_per_level,
    )
    network.transform = OwnScale(0, 0, list(mean), list(std))
    return network


build = build_singleshot
