"""Models by name: the packaged ones, DeepForest's, the user's own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.errors import ModelError
from ._checkpoints import (
    labels_by_index,
    load_checkpoint,
    load_strictly,
    read_state,
    source_metadata,
    source_version,
)
from ._sources import (
    FactorySource,
    WeightsSource,
    find_source,
    packaged_names,
    registered_names,
)
from ._weights import read_header
from .info import KIND_NAMES, Kind, ModelInfo
from .protocol import Detector

if TYPE_CHECKING:
    from torch import nn

    from .cropmodel import CropModel
    from .tilefilter import TileScorer

_RETINANET = "retinanet-resnet50-fpn-1"  # _retinanet.ARCHITECTURE, which would import torch
_CROPMODEL = "cropmodel-1"  # _cropnet.REVISION, likewise


def list_models() -> tuple[ModelInfo, ...]:
    """Return the packaged models, then those that installed packages registered."""
    return tuple(model_info(name) for name in (*packaged_names(), *registered_names()))


def model_info(
    model: str | Path | Detector | CropModel | TileScorer, kind: Kind = "detector"
) -> ModelInfo:
    """Return a model's particulars without building its network.

    Parameters
    ----------
    model
        What `load_detector`, `load_crop_model` or `load_tile_filter` takes; ``hf:`` names are
        fetched.
    kind
        What an import path makes, which its name does not tell.

    Raises
    ------
    ModelError
        If there is no such model, or its files can't be read.
    """
    if not isinstance(model, str | Path):
        info = getattr(model, "info", None)
        if isinstance(info, ModelInfo):
            return info
        own_kind: Kind = "detector" if isinstance(model, Detector) else "cropmodel"
        own_kind = "tilefilter" if hasattr(model, "empty_threshold") else own_kind
        return ModelInfo(model.name, model.version, own_kind, tuple(model.labels))
    source = find_source(model)
    if isinstance(source, FactorySource):
        return ModelInfo(source.name, _factory_version(source), kind)
    return _info(source)


def _info(source: WeightsSource) -> ModelInfo:
    metadata = source_metadata(source)
    if metadata:
        architecture = metadata["architecture"]
        return ModelInfo(
            name=source.name,
            version=source_version(source, architecture),
            kind=metadata["kind"],
            labels=tuple(metadata["labels"]),
            architecture=architecture,
            description=metadata.get("description", ""),
            licence=metadata.get("licence", ""),
            window_size=metadata.get("window_size"),
            gsd=metadata.get("gsd"),
            score_threshold=metadata.get("score_threshold"),
            nms_iou=metadata.get("nms_iou"),
            empty_threshold=metadata.get("empty_threshold"),
            metrics=metadata.get("metrics", {}),
            training_data=metadata.get("training_data", ""),
            weights=source.weights,
            card=source.card,
        )
    extra = dict(source.config)
    if source.is_checkpoint:
        content = load_checkpoint(source.weights)
        state = content.get("state_dict", content)
        keys = tuple(state)
        if state is not content:
            extra.update({k: v for k, v in content.items() if k != "state_dict"})
    else:
        keys = read_header(source.weights).keys
    if any("head.classification_head." in key for key in keys):
        from ._retinanet import retinanet_labels, retinanet_thresholds

        score, nms = retinanet_thresholds(extra)
        return ModelInfo(
            name=source.name,
            version=source_version(source, _RETINANET),
            kind="detector",
            labels=retinanet_labels(extra, source.name),
            architecture=_RETINANET,
            description="torchvision RetinaNet ResNet-50 FPN, DeepForest's layout",
            window_size=400,
            score_threshold=score,
            nms_iou=nms,
            weights=source.weights,
        )
    from ._cropfiles import crop_settings

    settings = crop_settings(source, extra)
    if not settings.get("label_dict"):
        raise ModelError(
            f"{source.name}: neither a RetinaNet of DeepForest's layout nor a crop model with a "
            "label_dict; name the network that it belongs to by package.module:factory."
        )
    return ModelInfo(
        name=source.name,
        version=source_version(source, _CROPMODEL),
        kind="cropmodel",
        labels=labels_by_index(settings["label_dict"], source.name),
        architecture=settings.get("architecture", ""),
        weights=source.weights,
    )


def load_detector(
    model: str | Path | Detector,
    *,
    device: str | None = None,
    score_threshold: float | None = None,
    nms_iou: float | None = None,
    precision: str = "auto",
    threads: int | None = None,
    detections_per_image: int | None = None,
) -> Detector:
    """Load a detector.

    Parameters
    ----------
    model
        ``geosweep/tree``; ``hf:owner/repo[@revision]`` or ``weecology/…``; a folder with
        model.safetensors and config.json; a ``.safetensors`` file; a checkpoint (``.ckpt``,
        ``.pt``, ``.pth``, ``.pl``) of plain tensors; ``package.module:factory``, called without
        arguments; or a `Detector`, which is returned as it is, or with the thresholds given here.
    device
        ``cpu``, ``cuda``, ``cuda:N``; None takes a GPU if there is one.
    score_threshold, nms_iou
        None for the model's own (`model_info`).
    precision
        ``auto`` (fp32 on a CPU, bf16 or fp16 autocast on a GPU), ``fp32``, ``bf16``, ``fp16``.
    threads
        CPU threads, each for an image of its own; None for one a core. Boxes are the same to the bit
        for any number. DeepForest's weights with None are computed in torch's own threads instead,
        which gives DeepForest's boxes to the bit.
    detections_per_image
        Most boxes per image; None for the model's own (300 for DeepForest's, as in DeepForest).

    Raises
    ------
    ModelError
        If the model can't be found, read or matched to its architecture, or there is no such device.
    """
    for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
        if value is not None and not 0 <= value <= 1:
            raise ModelError(f"{name} is {value}: give a number from 0 to 1.")
    if not isinstance(model, str | Path):
        own = _checked_detector(model, repr(type(model).__name__))
        return _with_thresholds(own, score_threshold, nms_iou)
    source = find_source(model)
    if isinstance(source, FactorySource):
        own = _checked_detector(_call_factory(source), source.name)
        return _with_thresholds(own, score_threshold, nms_iou)
    info = _info(source)
    if info.kind != "detector":
        block = "crop_models" if info.kind == "cropmodel" else "tile_filter"
        raise ModelError(
            f"{model}: is a {KIND_NAMES[info.kind]}, not a detector; name it under {block}."
        )
    from .detector import TorchDetector, pick_device

    score = info.score_threshold if score_threshold is None else score_threshold
    nms = info.nms_iou if nms_iou is None else nms_iou
    assert score is not None and nms is not None
    network = _build_network(source, info, score, nms)
    if detections_per_image is not None:
        network.detections_per_img = detections_per_image  # type: ignore[assignment]
    # DeepForest's networks are computed on a CPU as DeepForest does: the same boxes, to the bit. Who
    # names a number of threads wants results that don't depend on it.
    deepforests = info.architecture == _RETINANET and pick_device(device).type == "cpu"
    return TorchDetector(
        network,
        info,
        device=device,
        precision=precision,
        threads=threads,
        channels_last=not deepforests,
        as_torch=deepforests and threads is None,
    )


def _with_thresholds(detector: Detector, score: float | None, nms: float | None) -> Detector:
    """Honour thresholds for a detector that exists already, without changing it."""
    if score is None and nms is None:
        return detector
    from .detector import ScoreFilter, TorchDetector

    if isinstance(detector, TorchDetector):
        return detector.with_thresholds(score, nms)
    if nms is not None:
        raise ModelError(
            f"{detector.name}: is a detector of your own, so nms_iou is up to it; leave it out."
        )
    assert score is not None
    return ScoreFilter(detector, score)


def _build_network(source: WeightsSource, info: ModelInfo, score: float, nms: float) -> nn.Module:
    state, _ = read_state(source)
    if info.architecture == _RETINANET:
        from ._retinanet import load_retinanet

        return load_retinanet(state, info.labels, source.name, score=score, nms=nms)
    from ._singleshot import ARCHITECTURE, SingleShotConfig, build_singleshot
    from .detector import fold_batch_norm

    if info.architecture != ARCHITECTURE:
        raise ModelError(
            f"{source.name}: has the architecture {info.architecture}, which this geosweep does "
            f"not know (it builds {ARCHITECTURE} and {_RETINANET}); upgrade geosweep."
        )
    config = SingleShotConfig.from_dict(source_metadata(source)["config"])
    network = build_singleshot(config, score_threshold=score, nms_iou=nms)
    load_strictly(network, state, source.name)
    return fold_batch_norm(network.eval())


def load_crop_model(
    model: str | Path | CropModel, *, device: str | None = None, threads: int | None = None
) -> CropModel:
    """Load a crop model, in eval mode.

    Parameters
    ----------
    model
        ``geosweep/alive-dead``; ``hf:owner/repo[@revision]``; a folder; a ``.safetensors`` file; a
        checkpoint; ``package.module:factory``; or a `CropModel`, which is moved to `device` if one
        is given.
    device, threads
        As for `load_detector`.

    Raises
    ------
    ModelError
        As for `load_detector`.
    """
    from ._cropfiles import load_source
    from .cropmodel import CropModel
    from .detector import pick_device

    if isinstance(model, str | Path):
        source = find_source(model)
        if isinstance(source, FactorySource):
            loaded: Any = _call_factory(source)
        else:
            info = _info(source)
            if info.kind != "cropmodel":
                raise ModelError(f"{model}: is a {KIND_NAMES[info.kind]}, not a crop model.")
            loaded = load_source(CropModel, source)
            loaded.info = info
    else:
        loaded = model
    if not isinstance(loaded, CropModel):
        raise ModelError(f"{model}: is a {type(loaded).__name__}, expected a CropModel.")
    if threads is not None:
        loaded.threads = threads
    return loaded.to(pick_device(device)).eval()


def _checked_detector(detector: Any, name: str) -> Detector:
    if not isinstance(detector, Detector):
        missing = [
            part
            for part in ("name", "version", "labels", "device", "detect")
            if not hasattr(detector, part)
        ]
        raise ModelError(f"{name}: is no Detector, it lacks {', '.join(missing)}.")
    return detector


def _call_factory(source: FactorySource) -> Any:
    try:
        factory = importlib.import_module(source.module)
        for part in source.attribute.split("."):
            factory = getattr(factory, part)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{source.name}: can't be imported ({error}).") from error
    if not callable(factory):
        raise ModelError(f"{source.name}: is not callable, expected a function without arguments.")
    return factory()


def _factory_version(source: FactorySource) -> str:
    """Hash the import path and the module's source, as far as it is in a file."""
    try:
        spec = importlib.util.find_spec(source.module)
    except (ImportError, ValueError) as error:
        raise ModelError(f"{source.name}: can't be imported ({error}).") from error
    if spec is None:
        raise ModelError(f"{source.name}: there is no module {source.module}.")
    content = b""
    if spec.origin and Path(spec.origin).is_file():
        content = Path(spec.origin).read_bytes()
    return hashlib.sha256(source.name.encode() + b"\x1f" + content).hexdigest()[:16]
