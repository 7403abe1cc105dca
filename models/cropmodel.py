"""CropModel: classify what a detector found, crop by crop."""

from __future__ import annotations

from ._cropfit import TrainableCropModel
from ._cropmodel import BareCropModel


class CropModel(BareCropModel, TrainableCropModel):  # type: ignore[override]  # loads by its own means
    """A classifier of image crops.

    To change what it does, pass arguments, or override `create_model`, `normalize`,
    `get_transform`, `training_step`, `validation_step` or `configure_optimizers` in a subclass.

    Parameters
    ----------
    num_classes
        Number of classes; may be left out where `label_dict` or the training data tell.
    label_dict
        Label names to indices 0, 1, 2 …, such as ``{"Alive": 0, "Dead": 1}``.
    model
        The network: a module from (B, num_bands, H, W) to (B, num_classes) logits, or the name of
        one that can be built (``resnet18`` … ``resnet152``, ``efficientnet-lite0``,
        ``efficientnet-lite0-stride16``). ResNet-50 if None.
    pretrained
        Weights that a network built by name starts from: ``imagenet`` (EfficientNet's, which come
        with a package), or a file of torchvision's. Random ones if None. Nothing is fetched.
    freeze_norm
        Leave the statistics of batch norms alone in training: small sets of crops spoil them. None
        does so for `pretrained` weights, and learns them otherwise.
    resize
        Height and width of the network's input.
    normalize
        Mean and standard deviation per channel, of pixels in 0–1; None for what the network is used
        to (ImageNet's for three channels, 0.5 and 0.25 for others).
    resize_interpolation
        ``bilinear`` or ``nearest``.
    expand
        Pixels of context around each box.
    bands
        Which bands of a raster a crop has, by 1-based numbers or names; None for the three that the
        detector sees.
    num_bands
        Channels of the network's input: as many as `bands` if None; another number needs a
        `crop_transform` that makes them.
    crop_transform
        Replaces `get_transform`: from a crop's pixels (h, w, bands) to float32 (num_bands, H, W).
    augment
        Follows the transform in training: ``flip`` (a random horizontal flip, as DeepForest),
        ``turns`` (one of the eight symmetries), ``none``, or a function from the network's input
        (num_bands, H, W) to another.
    balance
        What to do about rare classes in training: ``none``; ``sample``, to draw each class equally
        often; ``weight``, to weigh the loss by the inverse of the class's share.
    lr
        Learning rate of Adam.
    batch_size, num_workers
        Crops in a batch, and processes that read ahead, in training.

    Attributes
    ----------
    name, labels
        How the model was asked for; label names by index.

    Raises
    ------
    ModelError
        If the arguments don't fit each other.
    """
