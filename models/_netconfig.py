"""What shapes the detection networks; stored beside their weights, and light to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ..catalog.strict import Block

Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Backbone = Literal["efficientnet-lite0", "mobilenet-v3-large", "resnet18", "resnet34", "resnet50"]


class NetworkConfig(Block):
    """What all three networks have.

    Attributes
    ----------
    num_classes
        Object classes; there is no background class.
    fg_iou, bg_iou
        An anchor is positive from `fg_iou` on, negative below `bg_iou`, ignored between.
    detections_per_image
        Most boxes of an image.
    """

    num_classes: Count = 1
    fg_iou: Share = 0.5
    bg_iou: Share = 0.4
    detections_per_image: Count = 300

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.bg_iou > self.fg_iou:
            raise ValueError(f"bg_iou ({self.bg_iou}) is larger than fg_iou ({self.fg_iou})")
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote (JSON turns tuples into lists)."""
        return cls.model_validate(dict(values))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return self.model_dump()


class SingleShotConfig(NetworkConfig):
    """The light single-shot detector.

    Attributes
    ----------
    backbone
        What looks at the pixels.
    channels
        Width of the pyramid and of the head.
    strides
        Strides of the levels that carry anchors: a choice of 4, 8, 16 and 32 (the pyramid's context
        always starts at 32).
    anchor_sizes
        For each level, the sides of its anchors in pixels; as many for each level.
    aspect_ratios
        Height / width of the anchors.
    head_convs
        3×3 convolutions in front of each of the two outputs.
    focal_alpha, focal_gamma
        Of the focal loss.
    detections_per_image, candidates_per_level
        Caps after and before NMS, high enough for a dense canopy.
    """

    backbone: Backbone = "efficientnet-lite0"
    channels: Count = 96
    strides: tuple[Literal[4, 8, 16, 32], ...] = (8, 16)
    anchor_sizes: tuple[tuple[Size, ...], ...] = ((14, 20, 28, 40), (52, 72, 100, 140))
    aspect_ratios: tuple[Size, ...] = (1.0,)
    head_convs: Annotated[int, Field(ge=0)] = 2
    focal_alpha: Share = 0.25
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    detections_per_image: Count = 2000
    candidates_per_level: Count = 4000

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if not self.strides or list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides are {list(self.strides)}: name each once, smallest first")
        if len(self.anchor_sizes) != len(self.strides):
            raise ValueError(
                f"anchor_sizes has {len(self.anchor_sizes)} levels and strides has "
                f"{len(self.strides)}: give a list of sizes for each stride"
            )
        if len({len(sizes) for sizes in self.anchor_sizes}) != 1 or not self.anchor_sizes[0]:
            raise ValueError("anchor_sizes must have as many sizes for each level")
        if not self.aspect_ratios:
            raise ValueError("aspect_ratios is empty: give at least one")
        return self


class _ResizingConfig(NetworkConfig):
    """Networks of torchvision that scale an image's shorter side to `min_size` at first.

    The longer side becomes at most `max_size`. `anchor_sizes` has a list of sides for each of the
    pyramid's five levels, in pixels of the scaled image. `norm` is ``frozen`` where the batch norm's
    statistics are those of pretrained weights, and ``batch`` where they have to be learned.
    """

    norm: Literal["frozen", "batch"] = "frozen"
    min_size: Count = 800
    max_size: Count = 1333
    anchor_sizes: tuple[tuple[Size, ...], ...]
    aspect_ratios: tuple[Size, ...] = (0.5, 1.0, 2.0)

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if len(self.anchor_sizes) != 5 or len({len(sizes) for sizes in self.anchor_sizes}) != 1:
            raise ValueError("anchor_sizes must have five lists of as many sizes each")
        if not self.anchor_sizes[0] or not self.aspect_ratios:
            raise ValueError("anchor_sizes and aspect_ratios must not be empty")
        if self.max_size < self.min_size:
            raise ValueError(f"max_size ({self.max_size}) is less than min_size ({self.min_size})")
        return self


class RetinaNetConfig(_ResizingConfig):
    """RetinaNet on ResNet-50; the defaults are torchvision's and DeepForest's.

    `candidates_per_level` caps the boxes before NMS.
    """

    # Three octave steps for each level, truncated as torchvision does.
    anchor_sizes: tuple[tuple[Size, ...], ...] = tuple(
        (x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)
    )
    candidates_per_level: Count = 1000


class FasterRCNNConfig(_ResizingConfig):
    """Faster R-CNN on ResNet-50; the defaults are torchvision's.

    `fg_iou` and `bg_iou` are those of the second stage; the proposals' are 0.7 and 0.3.
    """

    bg_iou: Share = 0.5
    anchor_sizes: tuple[tuple[Size, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
