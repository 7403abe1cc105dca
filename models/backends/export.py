"""Detectors as files for other runtimes: ONNX, and OpenVINO's intermediate representation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image

from ...catalog.errors import ModelError
from .dense import dense_part, unpacking
from .engines import check_backend, onnx_bytes, quietly

if TYPE_CHECKING:
    from torch import Tensor
    from torchvision.models.detection import RetinaNet

    from ..info import ModelInfo

_SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}


class BoxNetwork(nn.Module):
    """A detector of one size of image, up to but without NMS.

    Maps ``images`` float32 (1, 3, H, W), RGB in 0–1, to ``boxes`` float32 (N, 4), xmin, ymin, xmax,
    ymax in pixels of the image and clipped to it, and ``scores`` float32 (N, K): one row per anchor.
    """

    mean: Tensor
    std: Tensor
    anchors: Tensor
    factors: Tensor

    def __init__(self, network: RetinaNet, dense: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.dense = dense
        self.unpack = unpacking(network)
        self.box_coder: Any = network.box_coder
        transform: Any = network.transform
        with torch.no_grad():
            ready, _ = transform([torch.zeros(3, height, width)])
            levels = dense(ready.tensors)
            generator: Any = network.anchor_generator
            anchors = generator(ImageList(ready.tensors, ready.image_sizes), list(levels))[0]
        self.inner: tuple[int, int] = tuple(ready.image_sizes[0])  # type: ignore[assignment]
        self.padded = tuple(ready.tensors.shape[2:])
        self.outer = (height, width)
        mean, std = (
            torch.tensor(v).view(3, 1, 1) for v in (transform.image_mean, transform.image_std)
        )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("anchors", anchors)
        factors = [w / i for w, i in zip((width, height), self.inner[::-1], strict=True)]
        self.register_buffer("factors", torch.tensor(factors * 2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (images - self.mean) / self.std
        if self.inner != self.outer:
            x = nn.functional.interpolate(x, self.inner, mode="bilinear", align_corners=False)
        below, right = (p - i for p, i in zip(self.padded, self.inner, strict=True))
        outputs = self.unpack(self.dense(nn.functional.pad(x, (0, right, 0, below))))
        boxes = self.box_coder.decode_single(outputs["bbox_regression"][0], self.anchors)
        boxes = clip_boxes_to_image(boxes, self.inner) * self.factors
        return boxes, outputs["cls_logits"][0].sigmoid()


def export_detector(
    model: str | Path, path: str | Path, *, size: int | tuple[int, int] | None = None
) -> Path:
    """Write a detector as one file for ONNX Runtime, OpenVINO and whatever reads ONNX.

    Parameters
    ----------
    model
        What `load_detector` takes, of RetinaNet's kind.
    path
        ``….onnx``, or ``….xml`` for OpenVINO's format (its weights go into ``….bin`` beside it).
    size
        Side, or height and width, of the images it will take; None for the model's window size.

    Returns
    -------
    Path
        The file. Input and outputs are those of `BoxNetwork`; what remains is to keep the scores over
        the threshold and to apply NMS per class. ``….json`` beside it has labels, thresholds, size,
        GSD and the model's version.

    Raises
    ------
    ModelError
        If the model can't be loaded or exported, or the path has another ending.
    """
    from .. import load_detector, model_info
    from ..detector import TorchDetector

    path = Path(path)
    backend = _SUFFIXES.get(path.suffix.lower())
    if backend is None:
        raise ModelError(f"{path}: name a file that ends in {' or '.join(_SUFFIXES)}.")
    if not path.parent.is_dir():
        raise ModelError(f"{path}: there is no folder {path.parent}; make it first.")
    check_backend(backend, "cpu", "fp32", str(model))
    info = model_info(model)
    height, width = _size(size if size is not None else info.window_size, str(model))
    detector = load_detector(model, device="cpu", threads=1)
    if not isinstance(detector, TorchDetector):
        raise ModelError(f"{model}: is a detector of your own; export it with its own means.")
    network: Any = detector.network
    boxes = BoxNetwork(network, dense_part(network, str(model), backend), height, width).eval()
    example = torch.zeros(1, 3, height, width)
    if backend == "onnx":
        names = {"input_names": ["images"], "output_names": ["boxes", "scores"]}
        path.write_bytes(onnx_bytes(boxes, example, **names))
    else:
        import openvino

        with quietly():
            converted = openvino.convert_model(boxes, example_input=example, input=[*example.shape])
        for port, name in zip(converted.outputs, ("boxes", "scores"), strict=True):
            port.get_tensor().set_names({name})
        openvino.save_model(converted, path, compress_to_fp16=False)
    _write_particulars(path.with_suffix(".json"), info, network, (height, width))
    return path


def _size(size: int | tuple[int, int] | None, name: str) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple) else (size or 0, size or 0)
    if min(height, width) < 1:
        raise ModelError(f"{name}: the size is {size}; say how many pixels the images will have.")
    return height, width


def _write_particulars(path: Path, info: ModelInfo, network: Any, size: tuple[int, int]) -> None:
    content = {
        "name": info.name,
        "version": info.version,
        "labels": list(info.labels),
        "score_threshold": network.score_thresh,
        "nms_iou": network.nms_thresh,
        "height": size[0],
        "width": size[1],
        "gsd": info.gsd,
        "licence": info.licence,
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
