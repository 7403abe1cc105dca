"""The configuration of `geosweep train tilefilter`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ...catalog.strict import Block
from .._tilenet import TileNetConfig
from ..data.config import AugmentConfig, DataConfig, WindowConfig
from .base import TrainingConfig
from .config import OptimizerConfig

Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


class TileWindows(WindowConfig):
    """`WindowConfig` with windows at random places, so that objects are seen anywhere in them.

    `size` should be that of the job's windows: a filter answers for windows like those it was
    validated on.
    """

    sampling: Literal["windows", "crops"] = "crops"
    size: Annotated[int, Field(ge=16)] = 400  # type: ignore[assignment]


class TileData(DataConfig):
    """`DataConfig` that holds blocks of ground out by default: the threshold is chosen on them."""

    val: str | list[str] | Annotated[float, Field(gt=0, lt=1)] = 0.2  # type: ignore[assignment]
    split_by: Literal["image", "block"] = "block"
    windows: TileWindows = TileWindows()  # type: ignore[assignment]
    augment: AugmentConfig | None = AugmentConfig(blank=0.05)
    batch_size: Annotated[int, Field(gt=0)] = 16

    @field_validator("val", mode="before")
    @classmethod
    def _held_out(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(
                "the threshold is chosen on held-out ground; give annotation files, or a share of "
                "train such as 0.2"
            )
        return value


class TileModel(TileNetConfig):
    """The `model:` block: the network's shape, and where its weights start.

    Attributes
    ----------
    init
        ``geosweep/tree`` or another single-shot detector on EfficientNet-Lite0, for its backbone; a tile
        filter, to train it on; ``imagenet``; or null for random weights.
    """

    init: str | None = "geosweep/tree"


class TileOptimizer(OptimizerConfig):
    """`OptimizerConfig` with rates for a small network."""

    lr: Rate = 5e-3
    backbone_lr: Rate | None = 2e-3


class TileThresholds(Block):
    """The `threshold:` block.

    Attributes
    ----------
    max_loss
        Largest share of the validation objects that may lie in dropped windows.
    label
        A window is kept, whatever `empty` says, if a label's score is at least this. Null chooses for
        each label the highest, up to 0.9, that misses no more than `max_loss` of its objects.
    confidence
        Of the bounds that are reported.
    """

    max_loss: Share = 0.005
    label: Annotated[float, Field(ge=0, le=1)] | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


class TileFilterTraining(TrainingConfig):
    """Everything that `train_tilefilter` needs.

    Attributes
    ----------
    data, model, optimizer, threshold, trainer
        See `DataConfig`, `TileModel`, `OptimizerConfig`, `TileThresholds` and `TrainerConfig`.
    gsd
        Ground sample distance of the windows in metres, for the file; `data.windows.resolution` where
        that is given.
    description, licence
        For the file.
    compare
        A detector whose time per window is measured beside the filter's; null for none.
    """

    data: TileData
    model: TileModel = TileModel()
    optimizer: TileOptimizer = TileOptimizer()
    threshold: TileThresholds = TileThresholds()
    gsd: Annotated[float, Field(gt=0)] | None = None
    description: str = ""
    licence: str = ""
    compare: str | None = None

    @model_validator(mode="after")
    def _same_ground_size(self) -> TileFilterTraining:
        resolution = self.data.windows.resolution
        if self.gsd is not None and resolution is not None and self.gsd != resolution:
            raise ValueError(
                f"gsd is {self.gsd} and data.windows.resolution {resolution}; leave gsd out"
            )
        return self
