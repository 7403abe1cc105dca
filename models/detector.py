"""Torchvision-style networks behind the `Detector` protocol."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..catalog.errors import ModelError
from ._threads import cpu_threads, map_in_threads
from ._together import Together, can_be_together
from .backends.dense import fused_for_cpu
from .protocol import Detections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .info import ModelInfo

_log = logging.getLogger("geosweep")
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class TorchDetector:
    """A torchvision detection network as a `Detector`.

    Parameters
    ----------
    network
        Takes a list of float (3, H, W) images in 0–1 and returns one dict of boxes, labels and
        scores for each, in pixels of that image; thresholds are applied inside.
    info
        Name, version and labels.
    device
        Where to run: ``cpu``, ``cuda``, ``cuda:1`` …; None takes a GPU if there is one.
    precision
        ``auto`` is fp32 on a CPU, bf16 or fp16 autocast on a GPU.
    threads
        CPU threads; None for one a core.

    Notes
    -----
    On a CPU each image goes through the network by itself, in a thread of its own: an image's boxes
    then depend neither on its batch nor on the number of threads, to the bit. The layers of a
    RetinaNet, ours or torchvision's, are fused there; boxes are those of the network that was given up
    to rounding.
    """

    def __init__(
        self,
        network: nn.Module,
        info: ModelInfo,
        *,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.info = info
        self.name = info.name
        self.version = info.version
        self.labels = info.labels
        place = pick_device(device)
        self.device = str(place)
        self._threads = cpu_threads(threads)
        self._autocast = _autocast_dtype(precision, place)
        self._device = place
        network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval()
        if place.type == "cpu":
            self.network = fused_for_cpu(network, self._autocast or torch.float32)
        if self.network is not network:  # it has the precision built in
            self._autocast = None
        if self._autocast is not None:
            keep_boxes_exact(network)
        self._together = _together(self.network, place)
        _log.info("%s runs on %s", self.name, describe_device(place, self._threads))

    def detect(
        self, images: NDArray[np.uint8] | NDArray[np.float32] | torch.Tensor
    ) -> list[Detections]:
        """Detect objects in a batch (see `Detector.detect`)."""
        if self._device.type == "cpu":
            # Each thread turns its own image into numbers, which stay in its cache.
            batch = _checked_batch(images)
            return map_in_threads(self._on_cpu, batch, self._threads)
        batch = as_batch(images, self._device)
        if len(batch) == 0:
            return []
        if self._together is None:
            return self._forward(list(batch))
        with torch.inference_mode(), self._precision():
            return self._together(batch)

    def with_thresholds(self, score: float | None, nms: float | None) -> TorchDetector:
        """Return a copy that shares the weights and has other thresholds (None keeps one)."""
        twin = copy.copy(self)
        twin.network = set_limits(self.network, score=score, nms=nms)
        twin._together = _together(twin.network, self._device)
        return twin

    def _on_cpu(self, image: torch.Tensor) -> Detections:
        return self._forward([_as_numbers(image, self._device)])[0]

    def _forward(self, images: list[torch.Tensor]) -> list[Detections]:
        with torch.inference_mode(), self._precision():
            return [_detections(output) for output in self.network(images)]

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if self._autocast is None:
            yield
        else:
            with torch.autocast(self._device.type, dtype=self._autocast):
                yield


def pick_device(device: str | None) -> torch.device:
    """Return the device asked for, or a GPU if there is one, else the CPU.

    Raises
    ------
    ModelError
        If the device is unknown or not there.
    """
    if device is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device {device!r} is unknown: give cpu, cuda or cuda:N.") from error
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= count:
            raise ModelError(
                f"device {device!r} was asked for, but torch sees {count} GPU(s) here; "
                "leave the device out or say cpu."
            )
        return torch.device("cuda", place.index or 0)
    return place


def describe_device(place: torch.device, threads: int) -> str:
    """Say what runs the model, for the log."""
    if place.type == "cuda":
        return f"{place} ({torch.cuda.get_device_name(place)})"
    return f"{place} ({threads} threads)"


def as_batch(images: Any, place: torch.device) -> torch.Tensor:
    """Turn uint8 in 0–255 or float in 0–1, (B, 3, H, W), into float32 in 0–1 on a device.

    Raises
    ------
    ModelError
        For other shapes and dtypes.
    """
    return _as_numbers(_checked_batch(images), place)


def _checked_batch(images: Any) -> torch.Tensor:
    batch = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.asarray(images))
    if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape[2:]:
        raise ModelError(
            f"images have shape {tuple(batch.shape)}, expected (B, 3, H, W); choose three bands."
        )
    if batch.dtype != torch.uint8 and not batch.is_floating_point():
        raise ModelError(
            f"images have dtype {batch.dtype}, expected uint8 in 0–255 or float in 0–1; "
            "rescale them first (`rescale` in the job file)."
        )
    return batch


def _as_numbers(pixels: torch.Tensor, place: torch.device) -> torch.Tensor:
    if pixels.dtype == torch.uint8:
        return pixels.to(place).float().div_(255)
    return pixels.to(place, torch.float32)


def keep_boxes_exact(network: nn.Module) -> None:
    """Let the heads of a network of torchvision's kind give fp32 under autocast, too.

    Box offsets decoded in bf16 would be off by pixels.
    """
    for name, module in network.named_modules():
        if name in ("head", "rpn.head", "roi_heads.box_predictor"):
            module.register_forward_hook(_to_float)


def set_limits(
    network: nn.Module,
    *,
    score: float | None = None,
    nms: float | None = None,
    detections: int | None = None,
) -> nn.Module:
    """Return a copy that shares the weights and has other limits; None keeps one.

    Parameters
    ----------
    network
        Of torchvision's kind: RetinaNet keeps its limits itself, Faster R-CNN in its second stage.
    score, nms, detections
        Score threshold, NMS IoU and most boxes per image.
    """
    # A shallow copy of a module: the layers are the same, its plain attributes its own.
    twin = holder = copy.copy(network)
    if "roi_heads" in network._modules:
        holder = copy.copy(network._modules["roi_heads"])
        assert holder is not None
        twin._modules = {**network._modules, "roi_heads": holder}
    limits = {"score_thresh": score, "nms_thresh": nms, "detections_per_img": detections}
    for name, value in limits.items():
        if value is not None:
            setattr(holder, name, value)
    return twin


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold each batch norm that follows a convolution in a Sequential into it, in place.

    Same function up to rounding, less work; for inference only.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            conv, norm = module._modules[first], module._modules[second]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module._modules[first] = fuse_conv_bn_eval(conv.eval(), norm.eval())
                module._modules[second] = nn.Identity()
    return network


def _together(network: nn.Module, place: torch.device) -> Together | None:
    """What does a whole batch at once where that pays: on a GPU, for a network that it knows."""
    if place.type != "cpu" and can_be_together(network):
        return Together(network)
    return None


def _autocast_dtype(precision: str, place: torch.device) -> torch.dtype | None:
    if precision not in _PRECISIONS:
        raise ModelError(f"precision {precision!r} is unknown: give {', '.join(_PRECISIONS)}.")
    if precision == "fp32" or (precision == "auto" and place.type == "cpu"):
        return None
    if precision == "fp16" and place.type == "cpu":
        raise ModelError("precision fp16 does not run on a CPU: say auto, fp32 or bf16.")
    if precision == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if precision == "bf16" else torch.float16


def _to_float(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return _as_float(output)


def _as_float(output: Any) -> Any:
    if isinstance(output, dict):
        return {name: _as_float(value) for name, value in output.items()}
    if isinstance(output, list | tuple):
        return type(output)(_as_float(value) for value in output)
    return output.float()


def _detections(output: dict[str, torch.Tensor]) -> Detections:
    scores = output["scores"].float()
    order = torch.argsort(scores, descending=True, stable=True)
    return Detections(
        output["boxes"].float()[order].cpu().numpy(),
        output["labels"].to(torch.int64)[order].cpu().numpy(),
        scores[order].cpu().numpy(),
    )
