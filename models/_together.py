"""A RetinaNet on all images of a batch at once, for GPUs.

torchvision normalises and scales image by image, and decodes and suppresses boxes level by level of each:
hundreds of small operations a window, and some of them wait for the device. On a GPU that takes longer
than the convolutions. Here both are done for a batch as they are for one image.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import batched_nms, clip_boxes_to_image

from ._singleshot import OwnScale
from .protocol import Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

SIZES = 8
"""Sizes of image for which anchors are remembered."""
MOST_AT_ONCE = 25_000
"""Boxes up to which all images share one NMS, which compares each with each."""


class Together:
    """Gives what a RetinaNet gives for each image of a batch, up to rounding.

    Parameters
    ----------
    network
        In eval mode, on its device; one that `can_be_together`.

    Notes
    -----
    The limits of the network count: its score threshold, candidates of a level, NMS IoU (per class, in
    double precision, since images and classes are set apart by moving their boxes away from one another)
    and most detections of an image.
    """

    def __init__(self, network: RetinaNet) -> None:
        self._network = network
        self._anchors: dict[tuple[torch.Size, ...], list[Tensor]] = {}
        some = next(network.parameters(), None)
        device = torch.device("cpu") if some is None else some.device
        transform: Any = network.transform
        mean, std = (torch.tensor(part) for part in (transform.image_mean, transform.image_std))
        self._mean, self._std = (part.view(1, -1, 1, 1).to(device) for part in (mean, std))

    def __call__(self, images: Tensor) -> list[Detections]:
        """Detect in (B, 3, H, W) float images in 0–1, B ≥ 1; boxes are in their pixels."""
        batch, size = self._prepared(images)
        levels = list(self._network.backbone(batch).values())
        outputs: dict[str, Tensor] = self._network.head(levels)
        boxes, scores, labels = self._candidates(outputs, self._anchors_for(batch, levels))
        boxes = clip_boxes_to_image(boxes, size)
        found = self._best(boxes, scores, labels, outputs["cls_logits"].shape[2])
        # On the host: a handful of boxes, and for the device four operations more.
        found[:, :4] = resize_boxes(found[:, :4], list(size), list(images.shape[2:]))
        rows, most = found.numpy(), self._network.detections_per_img
        return [_detections(rows[rows[:, 6] == number][:most]) for number in range(len(images))]

    def _prepared(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised, scaled and padded images, and their size before padding."""
        transform: Any = self._network.transform
        images = (images - self._mean) / self._std
        if not isinstance(transform, OwnScale):
            sides = images.shape[2:]
            factor = min(transform.min_size[-1] / min(sides), transform.max_size / max(sides))
            images = functional.interpolate(
                images, scale_factor=factor, mode="bilinear", recompute_scale_factor=True
            )
        high, wide = images.shape[2:]
        step = transform.size_divisible
        return functional.pad(images, (0, -wide % step, 0, -high % step)), (high, wide)

    def _anchors_for(self, batch: Tensor, levels: list[Tensor]) -> list[Tensor]:
        """(N, 4) anchors of each level."""
        shapes = tuple(part.shape[2:] for part in (batch, *levels))
        if shapes not in self._anchors:
            while len(self._anchors) >= SIZES:
                del self._anchors[next(iter(self._anchors))]
            generator: Any = self._network.anchor_generator
            found: Tensor = generator(ImageList(batch[:1], [(0, 0)]), levels)[0].float()
            places = [math.prod(level.shape[2:]) for level in levels]
            at_each = len(found) // sum(places)
            self._anchors[shapes] = list(found.split([number * at_each for number in places]))
        return self._anchors[shapes]

    def _candidates(
        self, outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, 4) boxes, (B, N) scores and labels: the best of each level, whatever their score."""
        network: Any = self._network
        counts = [len(level) for level in anchors]
        logits = outputs["cls_logits"].float()
        offsets = outputs["bbox_regression"].float()
        levels = zip(logits.split(counts, 1), offsets.split(counts, 1), anchors, strict=True)
        parts: list[tuple[Tensor, ...]] = []
        for level_logits, level_offsets, level_anchors in levels:
            flat = level_logits.flatten(1)
            best, chosen = flat.topk(min(network.topk_candidates, flat.shape[1]), dim=1)
            places = chosen // logits.shape[2]
            moved = level_offsets.gather(1, places[:, :, None].expand(-1, -1, 4))
            parts.append((best, chosen % logits.shape[2], moved, level_anchors[places]))
        best, labels, moved, where = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        boxes = network.box_coder.decode_single(moved.flatten(0, 1), where.flatten(0, 1))
        return boxes.view(moved.shape), torch.sigmoid(best), labels

    def _best(self, boxes: Tensor, scores: Tensor, labels: Tensor, classes: int) -> Tensor:
        """(M, 7) on the host: boxes, scores, labels and images of what score and NMS leave.

        By descending score.
        """
        network: Any = self._network
        images = len(scores)
        rows = (scores > network.score_thresh).nonzero().unbind(1)
        image, boxes, scores, labels = rows[0], boxes[rows], scores[rows], labels[rows]
        # Images and classes are set apart by moving them; far from the origin float32 is too coarse.
        exact, by = boxes.double(), scores.double()
        if len(boxes) <= MOST_AT_ONCE:
            kept = batched_nms(exact, by, image * classes + labels, network.nms_thresh)
        else:
            ends = torch.bincount(image, minlength=images).cumsum(0).tolist()
            kept = torch.cat(
                [
                    batched_nms(exact[i:j], by[i:j], labels[i:j], network.nms_thresh) + i
                    for i, j in itertools.pairwise([0, *ends])
                ]
            )
        columns = (boxes, scores[:, None], labels[:, None], image[:, None])
        return torch.cat([column[kept] for column in columns], 1).cpu()


def can_be_together(network: nn.Module) -> TypeGuard[RetinaNet]:
    """Whether a network is a RetinaNet that `Together` knows all about."""
    if type(network) is not RetinaNet:
        return False
    transform = network.transform
    return type(transform) in (GeneralizedRCNNTransform, OwnScale) and transform.fixed_size is None


def _detections(rows: NDArray[np.float32]) -> Detections:
    return Detections(rows[:, :4].copy(), rows[:, 5].astype(np.int64), rows[:, 4].copy())
