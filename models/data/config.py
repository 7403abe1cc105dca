"""Settings of training data: how windows are cut and how they are varied."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ...catalog.strict import Block

Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[float, float]
Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


class AugmentConfig(Block):
    """Random changes to a training window; boxes follow the pixels.

    The defaults are those that geosweep/tree was trained with, except for `blank`.

    Parameters
    ----------
    horizontal_flip, vertical_flip
        Probabilities.
    turns
        Turn by a random multiple of 90°. What is seen from above has no up; switch it off for
        oblique pictures.
    zoom
        Range of the magnification, drawn uniformly in its logarithm; [1, 1] for none. Windows of a
        raster are cut larger or smaller, so that zooming out shows more of it.
    brightness, contrast, saturation, hue
        Strengths as in ``torchvision.transforms.v2.ColorJitter``.
    gamma
        Range of the exponent of the pixel values, drawn uniformly in its logarithm.
    blur, noise
        Probabilities of a slight Gaussian blur, and of noise with a standard deviation up to 0.03.
    mosaic
        Probability of a picture made of four.
    blank
        Share of pictures replaced by one flat colour without boxes: without them a detector makes up
        objects where there is nothing to see (water, nodata).
    """

    horizontal_flip: Share = 0.5
    vertical_flip: Share = 0.5
    turns: bool = True
    zoom: tuple[Positive, Positive] = (0.7, 1.4)
    brightness: Strength = 0.25
    contrast: Strength = 0.25
    saturation: Strength = 0.3
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    gamma: tuple[Positive, Positive] = (0.75, 1.33)
    blur: Share = 0.15
    noise: Share = 0.2
    mosaic: Share = 0.0
    blank: Share = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        for name in ("zoom", "gamma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]: write the smaller number first")
        return self


class WindowConfig(Block):
    """How windows are cut from the labelled rasters.

    Parameters
    ----------
    sampling
        ``windows``: every window of a regular grid once an epoch. ``crops``: random places, so that
        an object is seen anywhere in a window.
    size
        Side of a window in pixels (of `resolution`, if given); None for whole images.
    overlap
        Shared part of neighbouring windows of the grid.
    resolution
        Ground size of a training pixel in metres: rasters are read from the fitting overview and
        resampled. None leaves pixels alone.
    bands
        1-based numbers or names of the three bands to take, in the order red, green, blue. None takes
        all that are colours, which must be three.
    rescale
        The values that become 0 and 1, one pair or a pair for each band. None divides unsigned
        integers by their largest value.
    negatives
        The largest share of the windows that may be without boxes (which are chosen at random), or
        ``all``. For ``windows`` only.
    min_visible, min_side
        A box cut by a window's border is kept if this share of its area and this many pixels of its
        shorter side are left.
    near_box
        Share of the ``crops`` that are placed around a random box; the others lie anywhere.
    per_epoch
        Number of ``crops`` in an epoch; None for as many as cover the images once.
    weights
        For ``crops``: how often each image (by its `image_path`) is drawn; None draws by area.
    """

    sampling: Literal["windows", "crops"] = "windows"
    size: Annotated[int, Field(ge=16)] | None = 400
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.05
    resolution: Positive | None = None
    bands: tuple[int | str, int | str, int | str] | None = None
    rescale: tuple[Range, ...] | None = None
    negatives: Share | Literal["all"] = "all"
    min_visible: Share = 0.25
    min_side: Strength = 4.0
    near_box: Share = 0.5
    per_epoch: Annotated[int, Field(gt=0)] | None = None
    weights: dict[str, Strength] | None = None

    @field_validator("rescale", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) == 2:
            low, high = value
            if isinstance(low, int | float) and isinstance(high, int | float):
                return (value,)
        return value

    @field_validator("rescale")
    @classmethod
    def _ascending(cls, value: tuple[Range, ...] | None) -> tuple[Range, ...] | None:
        if value is not None and len(value) not in (1, 3):
            raise ValueError(f"has {len(value)} pairs: give one, or one for each of three bands")
        for low, high in value or ():
            if not low < high:
                raise ValueError(f"has [{low}, {high}]: low must be below high")
        return value

    @model_validator(mode="after")
    def _sized(self) -> WindowConfig:
        if self.sampling == "crops" and self.size is None:
            raise ValueError("sampling: crops needs a size")
        return self


class DataConfig(Block):
    """The `data:` block of a training configuration.

    Parameters
    ----------
    train
        Annotation files, as `read_annotations` takes them.
    val
        Annotation files to validate on, or the share of `train` to hold out; None for no validation.
    labels
        The classes in their order; None takes those of `train`, sorted.
    root_dir
        Folder of relative image paths; None for the folder of each annotation file.
    split_by
        What is held out where `val` is a share: whole images, or blocks of ground inside them.
    train_regions, val_regions
        For an `image_path`, the rectangles [x0, y0, x1, y1] in pixels to train or validate on; images
        that are not named are used whole. Not where `val` is a share.
    windows, augment
        How windows are cut and varied. No augmentation if `augment` is null.
    batch_size
        Windows in a batch.
    num_workers
        Processes that read ahead; 0 reads in the training process.
    """

    train: str | list[str]
    val: str | list[str] | Annotated[float, Field(gt=0, lt=1)] | None = None
    labels: tuple[str, ...] | None = None
    root_dir: str | None = None
    split_by: Literal["image", "block"] = "image"
    train_regions: dict[str, list[Rectangle]] | None = None
    val_regions: dict[str, list[Rectangle]] | None = None
    windows: WindowConfig = WindowConfig()
    augment: AugmentConfig | None = AugmentConfig()
    batch_size: Annotated[int, Field(gt=0)] = 4
    num_workers: Annotated[int, Field(ge=0)] = 0
