"""A crop model without its training, which needs Lightning: that takes seconds to import."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torchvision import transforms

from ..catalog.errors import ModelError
from . import _cropfiles
from ._cropclassify import ClassifiesCrops
from ._cropimages import CropsOfImages
from ._cropnet import REVISION, build_classifier, default_normalize
from ._croptransform import augmented, check_augment, standard_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ._croptransform import Augment, CropTransform


class BareCropModel(ClassifiesCrops, CropsOfImages, _cropfiles.CropModelFiles, nn.Module):
    """All of a `CropModel` but its training; parameters and errors are described there."""

    name: str = "cropmodel"

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        label_dict: Mapping[str, int] | None = None,
        model: nn.Module | str | None = None,
        pretrained: str | None = None,
        freeze_norm: bool | None = None,
        resize: Sequence[int] = (224, 224),
        normalize: Sequence[Sequence[float]] | None = None,
        resize_interpolation: str = "bilinear",
        expand: int = 0,
        bands: Sequence[int | str] | None = None,
        num_bands: int | None = None,
        crop_transform: CropTransform | None = None,
        augment: Augment = "flip",
        balance: str = "none",
        lr: float = 1e-4,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes, self.label_dict = _cropfiles.settle_classes(num_classes, label_dict)
        self._named = label_dict is not None
        self.bands = None if bands is None else tuple(bands)
        self.num_bands = self.crop_bands if num_bands is None else int(num_bands)
        self.architecture = "custom" if isinstance(model, nn.Module) else model or "resnet50"
        self.mean, self.std = _cropfiles.check_normalize(
            default_normalize(self.architecture, self.num_bands)
            if normalize is None
            else normalize,
            self.num_bands,
        )
        _cropfiles.check_settings(resize, expand, resize_interpolation, balance)
        self.resize = (int(resize[0]), int(resize[1]))
        self.resize_interpolation = resize_interpolation
        self.expand = int(expand)
        # In a tuple: a transform that is an nn.Module is no part of the network.
        self._transforms = (crop_transform, check_augment(augment))
        self.pretrained, self.balance = pretrained, balance
        self.freeze_norm = pretrained is not None if freeze_norm is None else freeze_norm
        self.lr, self.batch_size, self.num_workers = lr, batch_size, num_workers
        self.threads: int | None = None
        self.info = None
        self.model = model if isinstance(model, nn.Module) else None
        self.build()

    # --- what a subclass may replace --------------------------------------------------------------

    def create_model(self, num_classes: int) -> nn.Module:
        """Return a network from (B, num_bands, H, W) to (B, num_classes) logits.

        Called when the number of classes is known, unless a network was given as `model`.
        """
        return build_classifier(self.architecture, num_classes, self.num_bands, self.pretrained)

    def normalize(self) -> Callable[[Tensor], Tensor]:
        """Return what normalises pixels in 0–1, float32 (num_bands, h, w)."""
        return transforms.Normalize(self.mean, self.std)

    def get_transform(self, augment: bool = False) -> CropTransform:
        """Return what turns a crop into the network's input.

        Parameters
        ----------
        augment
            Let the model's augmentation follow.

        Returns
        -------
        callable
            From a crop (h, w, bands) to float32 (num_bands, H, W): to 0–1, normalise, then resize
            with anti-aliasing, in DeepForest's order. Crops are uint8, where 255 becomes 1; or
            float32, as they are for rasters of floats that nobody rescaled (heights, reflectances),
            which go to `normalize` as they are.
        """
        own, augmentation = self._transforms
        transform = own or standard_transform(
            self.normalize(), self.resize, self.resize_interpolation
        )
        return augmented(transform, augmentation) if augment else transform

    # --- what it is -------------------------------------------------------------------------------

    def build(self) -> None:
        """Create the network, if there is none yet and the number of classes is known."""
        if self.model is None and self.num_classes is not None:
            self.model = self.create_model(self.num_classes)
            if not isinstance(self.model, nn.Module):
                raise ModelError(
                    f"{type(self).__name__}.create_model gives {self.model!r}: return the network."
                )

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names by index; the indices themselves where no names were given."""
        return tuple(sorted(self.label_dict, key=self.label_dict.__getitem__))

    @property
    def numeric_to_label_dict(self) -> dict[int, str]:
        """Indices to label names."""
        return dict(enumerate(self.labels))

    @property
    def own_transform(self) -> bool:
        """Whether the transform is more than the settings tell: an argument or an override."""
        kind = type(self)
        return (
            self._transforms[0] is not None
            or kind.get_transform is not BareCropModel.get_transform
            or kind.normalize is not BareCropModel.normalize
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        if not self.own_transform:
            return (self.num_bands, *self.resize)
        shape = self.get_transform()(np.zeros((16, 16, self.crop_bands), np.uint8)).shape
        return (shape[0], shape[1], shape[2])

    @property
    def version(self) -> str:
        """Changes whenever the predictions may (16 hex digits); blind to a transform of one's own."""
        if self.info is not None:
            return self.info.version
        digest = hashlib.sha256(f"{REVISION} {self.settings()}".encode())
        for name, value in self.state_dict().items():
            content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + content.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def crop_bands(self) -> int:
        """Bands of a crop before the transform."""
        return 3 if self.bands is None else len(self.bands)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((part.device for part in self.parameters()), torch.device("cpu"))

    @property
    def device_name(self) -> str:
        """``cpu``, ``cuda:0`` …"""
        return str(self.device)

    def settings(self) -> dict[str, Any]:
        """Return everything but the weights that predictions depend on, JSON-ready."""
        return {
            "architecture": self.architecture,
            "label_dict": self.label_dict,
            "resize": list(self.resize),
            "normalize": [list(self.mean), list(self.std)],
            "resize_interpolation": self.resize_interpolation,
            "expand": self.expand,
            "bands": None if self.bands is None else list(self.bands),
            "num_bands": self.num_bands,
            "own_transform": self.own_transform,
            "lr": self.lr,
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_bands, H, W) to (B, num_classes) logits."""
        return self._network()(x)

    def _network(self) -> nn.Module:
        if self.model is None:
            raise ModelError(
                "CropModel has no network yet: give num_classes or label_dict, or training data."
            )
        return self.model
