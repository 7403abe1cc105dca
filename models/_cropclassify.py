"""The half of CropModel that computes: from crops to class probabilities."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..catalog.errors import ModelError
from ._cropinput import CropInput
from ._threads import cpu_threads, map_in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ._croptransform import CropPixels, CropTransform

    Crop: TypeAlias = "CropPixels | Tensor"

_GPU_BATCH = 256
PRECISIONS = {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By name, what torch's autocast computes in."""


class ClassifiesCrops:
    """What a crop model does with pixels; see `CropModel`."""

    # Set by `computed_with`: what computes the network in its place, and in which precision torch does.
    _engine: Callable[[Tensor], tuple[Tensor, ...]] | None = None
    _autocast: torch.dtype | None = None

    if TYPE_CHECKING:  # CropModel has them
        name: str
        mean: tuple[float, ...]
        std: tuple[float, ...]
        resize: tuple[int, int]
        resize_interpolation: str
        threads: int | None
        training: bool

        @property
        def device(self) -> torch.device: ...
        @property
        def labels(self) -> tuple[str, ...]: ...
        @property
        def own_transform(self) -> bool: ...
        @property
        def input_shape(self) -> tuple[int, int, int]: ...
        def get_transform(self, augment: bool = False) -> CropTransform: ...
        def normalize(self) -> Callable[[Tensor], Tensor]: ...
        def _network(self) -> nn.Module: ...
        def train(self, mode: bool = True) -> Any: ...

    def computed_with(self, backend: str = "torch", precision: str = "auto") -> Self:
        """Return a copy that shares the network, which another engine computes in `classify`.

        Parameters
        ----------
        backend
            As for `load_detector`. Weights that change later, in training, are not its own: ask again.
        precision
            ``auto`` and ``fp32`` compute in fp32; ``bf16`` and ``fp16`` where the device has them.

        Raises
        ------
        ModelError
            If the backend is not installed, or does not run on the device or in the precision.
        """
        from .backends import check_backend
        from .backends.engines import Engine

        place = self.device
        if precision not in PRECISIONS:
            raise ModelError(f"precision {precision!r} is unknown: give {', '.join(PRECISIONS)}.")
        check_backend(backend, place.type, precision, self.name)
        if precision == "fp16" and place.type == "cpu":
            raise ModelError(
                f"{self.name}: the precision fp16 does not run on a CPU: say auto, fp32 or bf16."
            )
        twin = copy.copy(self)
        # Those that run on CPUs alone have the precision built in.
        built_in = backend in ("onnx", "openvino")
        twin._autocast = None if built_in else PRECISIONS[precision]
        twin._engine = None
        if backend != "torch":
            network = _AsTuple(self._network()).eval()
            threads = cpu_threads(self.threads)
            twin._engine = Engine(network, backend, precision=precision, threads=threads)
        return twin

    @property
    def has_engine(self) -> bool:
        """Whether another engine than torch computes it; it stays on its device then."""
        return self._engine is not None

    def prepare(self, crops: Sequence[CropPixels]) -> NDArray[np.float32]:
        """Transform crops (h, w, bands) of any sizes into one float32 (N, num_bands, H, W) array.

        As `get_transform` does, up to rounding; as it does where it is not the usual one.
        """
        if len(crops) == 0:
            return np.zeros((0, *self.input_shape), np.float32)
        if self.own_transform:
            return torch.stack(list(self._transformed(crops))).numpy()
        inputs = self._input()
        prepared = np.empty((len(crops), *self.input_shape), np.float32)
        for place, crop in zip(prepared, crops, strict=True):
            place[...] = inputs.of_one(crop)
        return prepared

    def classify(self, crops: NDArray[np.float32] | Sequence[Crop]) -> NDArray[np.float32]:
        """Compute class probabilities.

        Parameters
        ----------
        crops
            float32 (N, num_bands, H, W) from `prepare`; or a list of crops, each as it was cut,
            (h, w, bands), or prepared, as a tensor (num_bands, H, W). There may be none.

        Returns
        -------
        NDArray
            float32 (N, num_classes), each row summing to 1. On a CPU each crop goes through the
            network by itself, in a thread of its own: its result depends neither on its batch nor on
            the number of threads, to the bit. On a GPU crops that are not prepared are resized there.
        """
        self._network()  # must be there
        if len(crops) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        items = self._items(crops)
        inputs, device = self._input(), self.device

        def probabilities(some: Sequence[Crop]) -> NDArray[np.float32]:
            with torch.inference_mode():
                batch = inputs.of_batch(some, device, together=device.type != "cpu")
                logits = self._logits(batch)
                return F.softmax(logits.float(), dim=1).cpu().numpy()

        was_training = self.training
        self.train(False)
        if device.type == "cpu":
            single = ([item] for item in items)
            parts = map_in_threads(probabilities, single, cpu_threads(self.threads))
        else:
            starts = range(0, len(items), _GPU_BATCH)
            parts = [probabilities(items[start : start + _GPU_BATCH]) for start in starts]
        self.train(was_training)
        return np.concatenate(parts)

    def is_light(self, crops: Sequence[CropPixels]) -> bool:
        """Whether crops take less room as they were cut, and `classify` resizes them in no time."""
        if self.own_transform:
            return False
        inputs, room = self._input(), 4 * math.prod(self.input_shape)
        small = sum(crop.nbytes for crop in crops) <= room * len(crops)
        return small and all(inputs.is_quick(crop) for crop in crops)

    def _logits(self, batch: Tensor) -> Tensor:
        half = self._autocast is not None
        with torch.autocast(batch.device.type, dtype=self._autocast, enabled=half):
            return self._network()(batch) if self._engine is None else self._engine(batch)[0]

    def _input(self) -> CropInput:
        return CropInput(
            self.mean, self.std, self.normalize(), self.resize, self.resize_interpolation
        )

    def _items(self, crops: NDArray[np.float32] | Sequence[Crop]) -> Sequence[Crop]:
        """Crops one by one; tensors are those that are prepared."""
        if isinstance(crops, np.ndarray):
            return list(torch.from_numpy(crops))
        return list(self._transformed(crops)) if self.own_transform else crops

    def _transformed(self, crops: Iterable[Crop]) -> Iterator[Tensor]:
        """Crops as one's own transform prepares them."""
        transform = self.get_transform()
        for crop in crops:
            if isinstance(crop, torch.Tensor):
                yield crop
            else:
                prepared = transform(np.ascontiguousarray(crop))
                yield torch.from_numpy(np.asarray(prepared, np.float32))


class _AsTuple(nn.Module):
    """A network with a tuple for its output, as engines want it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        return (self.network(batch),)
