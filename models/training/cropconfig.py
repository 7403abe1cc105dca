"""What `geosweep train cropmodel` is told; light to import."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ...catalog.strict import Block
from .base import TrainingConfig
from .config import OptimizerConfig

_LITE0 = "efficientnet-lite0"
_Pair = tuple[float, float]


class CropData(Block):
    """The `data:` block.

    Attributes
    ----------
    train
        A folder of crops, in one folder for each label, as `write_crops` writes them; annotation
        files, as `read_annotations` reads them; or the folder of a geosweep output. Crops of the
        latter two are cut from the rasters as they are needed; nothing is written.
    val
        The same for validation, or the share of each label's crops to hold out; null for none.
        Objects side by side look alike: held out of the same image they flatter the model.
    labels
        The classes in their order; null for those of `train`, sorted.
    label_column
        The column with the classes.
    per_class
        Take at most so many of each label from `train`; ``min``: as many as the rarest has. For
        annotations and outputs.
    min_score
        Leave out detections with a lower score.
    root_dir
        Folder of relative image paths; null for the folder of each annotation file.
    rescale
        The values that become 0 and 255, one pair or one for each band: for rasters of 16 bit.
    balance
        What to do about rare classes: ``none``; ``sample``, to draw each equally often; ``weight``,
        to weigh the loss.
    augment
        ``turns`` (the eight symmetries: what is seen from above has no up), ``flip`` or ``none``.
    batch_size, num_workers
        Crops in a batch, and processes that read ahead.
    """

    train: str | list[str]
    val: Annotated[float, Field(gt=0, lt=1)] | str | list[str] | None = None
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    label_column: str = "label"
    per_class: Annotated[int, Field(ge=1)] | Literal["min"] | None = None
    min_score: float | None = None
    root_dir: str | None = None
    rescale: _Pair | tuple[_Pair, ...] | None = None
    balance: Literal["none", "sample", "weight"] = "none"
    augment: Literal["none", "flip", "turns"] = "turns"
    batch_size: int = Field(default=32, ge=1)
    num_workers: int = Field(default=0, ge=0)


class CropNetwork(Block):
    """The `model:` block.

    Attributes
    ----------
    start
        A crop model to go on from, whatever `load_crop_model` takes as files; its settings hold
        unless others are given here. The scores of labels that it does not know start anew.
    architecture
        Without `start`: ``efficientnet-lite0``, ``efficientnet-lite0-stride16``, or ``resnet18`` …
        ``resnet152``.
    pretrained
        Without `start`: ``imagenet``, which is at hand for efficientnet-lite0 alone and its default;
        a file of torchvision's; or null for random weights.
    freeze_norm
        Leave the statistics of batch norms alone: small sets of crops spoil them. Null does so unless
        the training starts from random weights.
    resize, normalize, resize_interpolation, expand, bands
        As in `CropModel`.
    gsd
        Metres per pixel of the rasters, for the file.
    description, licence
        For the file.
    """

    start: str | None = None
    architecture: str = _LITE0
    pretrained: str | None = None
    freeze_norm: bool | None = None
    resize: tuple[int, int] = (224, 224)
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    resize_interpolation: Literal["bilinear", "nearest"] = "bilinear"
    expand: int = Field(default=0, ge=0)
    bands: tuple[int | str, ...] | None = None
    gsd: float | None = Field(default=None, gt=0)
    description: str = ""
    licence: str = ""

    @model_validator(mode="before")
    @classmethod
    def _imagenet(cls, values: Any) -> Any:
        """ImageNet weights, where they are at hand and nothing else was said."""
        if isinstance(values, dict) and values.get("start") is None:
            at_hand = str(values.get("architecture", _LITE0)).startswith(_LITE0)
            if at_hand and "pretrained" not in values:
                return {**values, "pretrained": "imagenet"}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = {"architecture", "pretrained"} & self.model_fields_set
        if self.start is not None and given:
            raise ValueError(f"{min(given)} is settled by start; leave it out")
        return self

    @property
    def from_random(self) -> bool:
        """Whether the network starts from random weights."""
        return self.start is None and self.pretrained is None

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `CropModel` that were given."""
        names = {"resize", "normalize", "resize_interpolation", "expand", "bands"}
        return {name: getattr(self, name) for name in names & self.model_fields_set}


class CropTraining(TrainingConfig):
    """A whole training of a crop model, as written in its configuration file.

    Attributes
    ----------
    data, model, optimizer, trainer
        See `CropData`, `CropNetwork`, `OptimizerConfig` and `TrainerConfig`. Without
        `optimizer.backbone_lr`, layers that have learned already have a tenth of `optimizer.lr`.
    """

    data: CropData
    model: CropNetwork = Field(default_factory=lambda: CropNetwork.model_validate({}))
    optimizer: OptimizerConfig = OptimizerConfig()
