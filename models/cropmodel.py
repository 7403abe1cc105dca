"""CropModel: classify what a detector found, crop by crop."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningModule
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from ..catalog.errors import ModelError
from . import _cropfiles
from ._cropnet import REVISION, build_classifier
from ._threads import cpu_threads, map_in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from .info import ModelInfo

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet, per channel."""
_GPU_BATCH = 256


class CropModel(LightningModule):
    """A classifier of image crops.

    Parameters
    ----------
    num_classes
        Number of classes; may be left out where `label_dict` tells.
    label_dict
        Label names to indices 0, 1, 2 …, such as ``{"Alive": 0, "Dead": 1}``.
    model
        The network: a module from (B, 3, H, W) to (B, num_classes) logits, or the name of one that
        can be built (``resnet18`` … ``resnet152``, ``efficientnet-lite0``). ResNet-50 if None, with
        random weights: nothing is fetched.
    resize
        Height and width of the network's input.
    normalize
        Mean and standard deviation per channel, of pixels in 0–1.
    resize_interpolation
        ``bilinear`` or ``nearest``.
    expand
        Pixels of context around each box.
    lr
        Learning rate of Adam.

    Attributes
    ----------
    name, labels
        How the model was asked for; label names by index.

    Raises
    ------
    ModelError
        If the arguments don't fit each other.
    """

    name: str = "cropmodel"

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        label_dict: Mapping[str, int] | None = None,
        model: nn.Module | str | None = None,
        resize: Sequence[int] = (224, 224),
        normalize: tuple[Sequence[float], Sequence[float]] = IMAGENET,
        resize_interpolation: str = "bilinear",
        expand: int = 0,
        lr: float = 1e-4,
    ) -> None:
        super().__init__()
        self.num_classes, self.label_dict = _cropfiles.settle_classes(num_classes, label_dict)
        self.architecture = "custom" if isinstance(model, nn.Module) else model or "resnet50"
        self.model = model if isinstance(model, nn.Module) else self._build()
        if len(resize) != 2 or min(resize) < 1:
            raise ModelError(f"resize is {resize}: give height and width in pixels.")
        if expand < 0:
            raise ModelError(f"expand is {expand}: give 0 or more pixels of context.")
        if resize_interpolation not in ("bilinear", "nearest"):
            raise ModelError(
                f"resize_interpolation is {resize_interpolation!r}: give bilinear or nearest."
            )
        self.resize = (int(resize[0]), int(resize[1]))
        self.mean, self.std = tuple(normalize[0]), tuple(normalize[1])
        self.resize_interpolation = resize_interpolation
        self.expand = int(expand)
        self.threads: int | None = None
        self.lr = lr
        self.info: ModelInfo | None = None

    def _build(self) -> nn.Module | None:
        """Build the named network; None while the number of classes is not known."""
        if self.num_classes is None:
            return None
        return build_classifier(self.architecture, self.num_classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names by index; the indices themselves where no names were given."""
        return tuple(sorted(self.label_dict, key=self.label_dict.__getitem__))

    @property
    def version(self) -> str:
        """Changes whenever the predictions may (16 hex digits)."""
        if self.info is not None:
            return self.info.version
        digest = hashlib.sha256(f"{REVISION} {self.settings()}".encode())
        for name, value in self.state_dict().items():
            content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + content.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def device_name(self) -> str:
        """``cpu``, ``cuda:0`` …"""
        return str(self.device)

    def settings(self) -> dict[str, Any]:
        """Return everything but the weights, JSON-ready."""
        return {
            "architecture": self.architecture,
            "label_dict": self.label_dict,
            "resize": list(self.resize),
            "normalize": [list(self.mean), list(self.std)],
            "resize_interpolation": self.resize_interpolation,
            "expand": self.expand,
            "lr": self.lr,
        }

    # --- pixels to probabilities ------------------------------------------------------------------

    def get_transform(self, augment: bool = False) -> Callable[[NDArray[np.uint8]], Tensor]:
        """Return what turns a crop into the network's input.

        Parameters
        ----------
        augment
            Add a random horizontal flip.

        Returns
        -------
        callable
            From uint8 (h, w, 3) to float32 (3, H, W): to 0–1, normalise, then resize with
            anti-aliasing, in DeepForest's order.
        """
        mode = transforms.InterpolationMode(self.resize_interpolation)
        steps: list[Any] = [
            transforms.ToTensor(),
            transforms.Normalize(self.mean, self.std),
            transforms.Resize(list(self.resize), interpolation=mode),
        ]
        if augment:
            steps.append(transforms.RandomHorizontalFlip(0.5))
        return transforms.Compose(steps)

    def prepare(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Transform uint8 crops (h, w, 3) of any sizes into one float32 (N, 3, H, W) array."""
        if len(crops) == 0:
            return np.zeros((0, 3, *self.resize), np.float32)
        transform = self.get_transform(augment=False)
        return np.stack([np.asarray(transform(crop), np.float32) for crop in crops])

    def classify(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute class probabilities.

        Parameters
        ----------
        batch
            float32 (N, 3, H, W) from `prepare`; N may be 0.

        Returns
        -------
        NDArray
            float32 (N, num_classes), each row summing to 1. On a CPU each crop goes through the
            network by itself, in a thread of its own: its result depends neither on its batch nor on
            the number of threads, to the bit.
        """
        network = self._network()
        if len(batch) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        on_cpu = self.device.type == "cpu"
        step = 1 if on_cpu else _GPU_BATCH
        chunks = [batch[start : start + step] for start in range(0, len(batch), step)]

        def probabilities(chunk: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                logits = network(torch.from_numpy(chunk).to(self.device))
                return F.softmax(logits.float(), dim=1).cpu().numpy()

        was_training = self.training
        self.eval()
        if on_cpu:
            parts = map_in_threads(probabilities, chunks, cpu_threads(self.threads))
        else:
            parts = [probabilities(chunk) for chunk in chunks]
        self.train(was_training)
        return np.concatenate(parts)

    # --- training ---------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, num_classes) logits."""
        return self._network()(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch of crops and class indices."""
        crops, classes = batch
        loss = F.cross_entropy(self(crops), classes)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Log ``val_loss`` and ``val_accuracy``."""
        crops, classes = batch
        logits = self(crops)
        loss = F.cross_entropy(logits, classes)
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_accuracy", (logits.argmax(1) == classes).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam at `lr`."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def on_fit_start(self) -> None:
        """Forget the version of the file that the weights came from."""
        self.info = None

    # --- files ------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the settings into a Lightning checkpoint."""
        checkpoint["geosweep"] = self.settings()
        checkpoint["label_dict"] = dict(self.label_dict)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, *, model: nn.Module | None = None, **settings: Any
    ) -> CropModel:
        """Load a checkpoint of Lightning's trainer, as plain tensors only.

        Parameters
        ----------
        checkpoint_path
            The ``.ckpt`` file.
        model
            The network, if it was not built by name.
        **settings
            Replace what the checkpoint says (`resize`, `expand` …).

        Raises
        ------
        ModelError
            If the file is no such checkpoint or does not fit.
        """
        return _cropfiles.load(cls, checkpoint_path, model, settings)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``model.safetensors`` and ``config.json`` in DeepForest's layout."""
        return _cropfiles.save(self, Path(folder))

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, model: nn.Module | None = None, **settings: Any
    ) -> CropModel:
        """Load what `save_pretrained` or DeepForest wrote: folder, file or ``hf:owner/repo``."""
        return _cropfiles.load(cls, source, model, settings)

    def _network(self) -> nn.Module:
        if self.model is None:
            raise ModelError("CropModel has no network yet: give num_classes or label_dict.")
        return self.model
