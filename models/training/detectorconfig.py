"""What `geosweep train detector` is told; light to import."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ...catalog.errors import TrainingError
from ...catalog.strict import Block, checked
from .._architectures import ARCHITECTURES
from .._netconfig import NetworkConfig
from ..data.config import DataConfig
from .base import TrainingConfig
from .config import OptimizerConfig


class ModelConfig(Block):
    """The `model:` block.

    Attributes
    ----------
    start
        Weights to go on from: whatever `load_detector` takes except ``package.module:factory``, such
        as ``geosweep/tree``, ``hf:weecology/deepforest-tree``, a folder or a file. The scores of new
        labels start anew; those of labels that the weights know are kept.
    architecture
        Without `start`: ``singleshot``, ``retinanet`` or ``fasterrcnn``.
    network
        Settings of that architecture (`SingleShotConfig`, `RetinaNetConfig`, `FasterRCNNConfig`),
        such as ``anchor_sizes``; over those of `start`.
    backbone_weights
        Without `start`: ``imagenet``, a file of torchvision's, or null for random weights. Only the
        single-shot detector's default backbone has ``imagenet`` at hand; null is its default for
        all others.
    score_threshold
        Boxes below are not reported, unless `load_detector` is told otherwise. ``best`` takes the
        score with the best F1 in the last validation. Null for that of `start` or of the
        architecture.
    nms_iou
        Overlap from which the lower of two boxes is dropped; null likewise.
    gsd
        Metres per pixel that the model expects; null for `data.windows.resolution`, or that of
        `start`.
    description, licence
        Written into the weights file.
    """

    start: str | None = None
    architecture: Literal["singleshot", "retinanet", "fasterrcnn"] = "singleshot"
    network: dict[str, Any] = Field(default_factory=dict)
    backbone_weights: str | None = None
    score_threshold: float | Literal["best"] | None = None
    nms_iou: float | None = Field(default=None, gt=0, le=1)
    gsd: float | None = Field(default=None, gt=0)
    description: str = ""
    licence: str = ""

    @field_validator("score_threshold", mode="before")
    @classmethod
    def _score(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
        if value not in (None, "best"):
            raise ValueError("must be a number from 0 to 1, 'best' or null")
        return value

    @model_validator(mode="before")
    @classmethod
    def _imagenet(cls, values: Any) -> Any:
        """ImageNet weights, where they are at hand and nothing else was said."""
        if isinstance(values, dict) and values.get("start") is None:
            network = values.get("network") or {}
            at_hand = (
                values.get("architecture", "singleshot") == "singleshot"
                and isinstance(network, dict)
                and network.get("backbone", "efficientnet-lite0") == "efficientnet-lite0"
            )
            if at_hand and "backbone_weights" not in values:
                return {**values, "backbone_weights": "imagenet"}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.start is not None:
            for key in ("architecture", "backbone_weights"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is settled by start; leave it out")
        if "num_classes" in self.network:
            raise ValueError("network.num_classes follows from data.labels; leave it out")
        if self.start is None:
            self.network_config(1)
        return self

    def network_config(self, num_classes: int, start: NetworkConfig | None = None) -> NetworkConfig:
        """Return what shapes the network.

        Parameters
        ----------
        num_classes
            Number of labels.
        start
            The shape of the network to go on from.

        Raises
        ------
        TrainingError
            If a setting is unknown or wrong.
        """
        kind = ARCHITECTURES[self.architecture].config if start is None else type(start)
        before = {} if start is None else start.to_dict()
        if start is None and self.backbone_weights is None and "norm" in kind.model_fields:
            before = {"norm": "batch"}  # there are no statistics to freeze
        content = {**before, **self.network, "num_classes": num_classes}
        return checked(kind, content, "model.network", TrainingError)


class DetectorTraining(TrainingConfig):
    """A whole training of a detector, as written in its configuration file."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig
    optimizer: OptimizerConfig = OptimizerConfig()
