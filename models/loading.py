"""Models by name: the packaged ones, DeepForest's, the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..catalog.errors import ModelError
from ._architectures import read_network
from ._describe import describe
from ._factories import call_factory, factory_version
from ._scorefilter import Adjustable, ScoreFilter
from ._sources import FactorySource, find_source, packaged_names, registered_names
from .info import KIND_NAMES, Kind, ModelInfo
from .protocol import Detector, TileScorer

if TYPE_CHECKING:
    from ._cropmodel import BareCropModel
    from .cropmodel import CropModel

_Crops = TypeVar("_Crops", bound="BareCropModel")


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
        own_kind = "tilefilter" if isinstance(model, TileScorer) else own_kind
        return ModelInfo(model.name, model.version, own_kind, tuple(model.labels))
    source = find_source(model)
    if isinstance(source, FactorySource):
        return ModelInfo(source.name, factory_version(source), kind)
    return describe(source)


def load_detector(
    model: str | Path | Detector,
    *,
    device: str | None = None,
    score_threshold: float | None = None,
    nms_iou: float | None = None,
    precision: str = "auto",
    threads: int | None = None,
    detections_per_image: int | None = None,
    backend: str = "torch",
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
        for any number.
    detections_per_image
        Most boxes per image; None for the model's own (300 for DeepForest's, as in DeepForest).
    backend
        What computes the convolutions: ``torch``; on CPUs the faster ``openvino`` (bf16 too, where
        the CPU has it) or ``onnx``; ``compile`` for torch's compiler. All but torch are prepared anew
        for each size of image, which takes seconds; boxes are torch's up to rounding
        (docs/performance.md says how much).

    Raises
    ------
    ModelError
        If the model can't be found, read or matched to its architecture, or there is no such device
        or backend.
    """
    for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
        if value is not None and not 0 <= value <= 1:
            raise ModelError(f"{name} is {value}: give a number from 0 to 1.")
    if not isinstance(model, str | Path):
        own = _checked_detector(model, repr(type(model).__name__))
        _refuse_backend(own.name, backend)
        return _with_thresholds(own, score_threshold, nms_iou)
    source = find_source(model)
    if isinstance(source, FactorySource):
        own = _checked_detector(call_factory(source), source.name)
        _refuse_backend(own.name, backend)
        return _with_thresholds(own, score_threshold, nms_iou)
    info = describe(source)
    if info.kind != "detector":
        block = "crop_models" if info.kind == "cropmodel" else "tile_filter"
        raise ModelError(
            f"{model}: is a {KIND_NAMES[info.kind]}, not a detector; name it under {block}."
        )
    from .backends import accelerate, check_backend
    from .detector import TorchDetector, fold_batch_norm, pick_device, set_limits

    score = info.score_threshold if score_threshold is None else score_threshold
    nms = info.nms_iou if nms_iou is None else nms_iou
    assert score is not None and nms is not None
    place = pick_device(device)
    check_backend(backend, place.type, precision, source.name)
    network, _ = read_network(source, info, score=score, nms=nms)
    if detections_per_image is not None:
        network = set_limits(network, detections=detections_per_image)
    network = fold_batch_norm(network.eval())
    if backend != "torch":
        network = accelerate(
            network, backend, source.name, precision=precision, threads=threads, device=place
        )
    return TorchDetector(
        network,
        info,
        device=device,
        # These have the precision built in; autocast would do nothing for them.
        precision="auto" if backend in ("onnx", "openvino") else precision,
        threads=threads,
    )


def _refuse_backend(name: str, backend: str) -> None:
    if backend != "torch":
        raise ModelError(
            f"{name}: is a detector of your own, so what computes it is up to it; leave out the "
            f"backend ({backend})."
        )


def _with_thresholds(detector: Detector, score: float | None, nms: float | None) -> Detector:
    """Honour thresholds for a detector that exists already, without changing it."""
    if score is None and nms is None:
        return detector
    if isinstance(detector, Adjustable):
        return detector.with_thresholds(score, nms)
    if nms is not None:
        raise ModelError(
            f"{detector.name}: is a detector of your own, so nms_iou is up to it; leave it out."
        )
    assert score is not None
    return ScoreFilter(detector, score)


def load_crop_model(
    model: str | Path | CropModel,
    *,
    device: str | None = None,
    threads: int | None = None,
    backend: str = "torch",
    precision: str = "auto",
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
    backend, precision
        As for `load_detector`, but that ``auto`` is fp32 on a GPU, too. A `CropModel` that is given
        keeps its own; what is returned then is another that shares its weights.

    Raises
    ------
    ModelError
        As for `load_detector`.
    """
    from .cropmodel import CropModel

    return _load_crops(CropModel, model, device, threads, backend, precision)


def load_bare_crop_model(
    model: str | Path | BareCropModel,
    *,
    device: str | None = None,
    threads: int | None = None,
    backend: str = "torch",
    precision: str = "auto",
) -> BareCropModel:
    """Load a crop model that only predicts, as `load_crop_model` does, but without Lightning.

    Importing Lightning and its metrics takes seconds.
    """
    from ._cropmodel import BareCropModel

    return _load_crops(BareCropModel, model, device, threads, backend, precision)


def _load_crops(
    kind: type[_Crops],
    model: str | Path | _Crops,
    device: str | None,
    threads: int | None,
    backend: str,
    precision: str,
) -> _Crops:
    from ._cropfiles import load_source
    from .detector import pick_device

    if isinstance(model, str | Path):
        source = find_source(model)
        if isinstance(source, FactorySource):
            loaded: Any = call_factory(source)
        else:
            info = describe(source)
            if info.kind != "cropmodel":
                raise ModelError(f"{model}: is a {KIND_NAMES[info.kind]}, not a crop model.")
            loaded = load_source(kind, source)
            loaded.info = info
    else:
        loaded = model
    if not isinstance(loaded, kind):
        raise ModelError(f"{model}: is a {type(loaded).__name__}, expected a CropModel.")
    if threads is not None:
        loaded.threads = threads
    place = pick_device(device)
    if loaded.has_engine and place != loaded.device:
        if device is not None:
            raise ModelError(
                f"{loaded.name}: was loaded for the device {loaded.device}, where its backend's "
                f"programs are; load it anew for {place}."
            )
        place = loaded.device
    loaded = loaded.to(place).eval()
    if (backend, precision) == ("torch", "auto"):
        return loaded
    return loaded.computed_with(backend, precision)


def _checked_detector(detector: Any, name: str) -> Detector:
    if not isinstance(detector, Detector):
        missing = [
            part
            for part in ("name", "version", "labels", "device", "detect")
            if not hasattr(detector, part)
        ]
        raise ModelError(f"{name}: is no Detector, it lacks {', '.join(missing)}.")
    return detector
