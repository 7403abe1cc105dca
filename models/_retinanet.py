"""torchvision's RetinaNet with the layout of DeepForest's published weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import resnet50
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from ..catalog.errors import ModelError
from ._checkpoints import labels_by_index
from ._netconfig import RetinaNetConfig

if TYPE_CHECKING:
    from torch import Tensor

SCORE_THRESHOLD = 0.1
"""DeepForest's, where its config.json gives none."""
NMS_IOU = 0.05
"""DeepForest's, where its config.json gives none."""
_ANCHORS = 9


def build_retinanet(
    config: RetinaNetConfig | int,
    *,
    score_threshold: float = SCORE_THRESHOLD,
    nms_iou: float = NMS_IOU,
) -> RetinaNet:
    """Build the network with random weights.

    With a number of classes instead of a configuration, every setting that the boxes depend on is
    torchvision's default, as in DeepForest: ResNet-50 with frozen batch norm at eps 1e-5, P3–P7 with
    P6 and P7 computed from P5, images resized to 800 px.
    """
    if isinstance(config, int):
        config = RetinaNetConfig(num_classes=config)
    norm = partial(FrozenBatchNorm2d, eps=1e-5) if config.norm == "frozen" else nn.BatchNorm2d
    body = resnet50(weights=None, norm_layer=norm)
    backbone = _resnet_fpn_extractor(
        body,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    ratios = (config.aspect_ratios,) * len(config.anchor_sizes)
    return RetinaNet(
        backbone,
        config.num_classes,
        min_size=config.min_size,
        max_size=config.max_size,
        anchor_generator=AnchorGenerator(config.anchor_sizes, ratios),
        score_thresh=score_threshold,
        nms_thresh=nms_iou,
        detections_per_img=config.detections_per_image,
        fg_iou_thresh=config.fg_iou,
        bg_iou_thresh=config.bg_iou,
        topk_candidates=config.candidates_per_level,
    )


build = build_retinanet


def retinanet_labels(extra: dict[str, Any], name: str) -> tuple[str, ...]:
    """Read the label names out of config.json or a checkpoint of DeepForest's."""
    return labels_by_index(extra.get("label_dict"), name)


def retinanet_thresholds(extra: dict[str, Any]) -> tuple[float, float]:
    """Read the score threshold and the NMS IoU, DeepForest's defaults where there are none."""
    score = extra.get("score_thresh")
    nms = extra.get("nms_thresh")
    return (
        SCORE_THRESHOLD if score is None else float(score),
        NMS_IOU if nms is None else float(nms),
    )


def published_config(
    state: dict[str, Tensor], labels: tuple[str, ...], name: str
) -> RetinaNetConfig:
    """Return the shape of a network of DeepForest's layout, whose file does not tell it.

    Parameters
    ----------
    state
        Its tensors, without the ``model.`` prefix.
    labels
        As many as the weights have classes.
    name
        For error messages.

    Raises
    ------
    ModelError
        If there are more or fewer.
    """
    logits = state.get("head.classification_head.cls_logits.bias")
    classes = len(labels) if logits is None else len(logits) // _ANCHORS
    if classes != len(labels):
        raise ModelError(
            f"{name}: the weights have {classes} class(es), but label_dict names {len(labels)} "
            f"({', '.join(labels[:5])}); make label_dict in config.json fit."
        )
    return RetinaNetConfig(num_classes=classes)
