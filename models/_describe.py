"""A model's particulars, as its files tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..catalog.errors import ModelError
from ._architectures import RETINANET
from ._checkpoints import labels_by_index, load_checkpoint, source_metadata, source_version
from ._weights import read_header
from .info import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._sources import WeightsSource

_CROPMODEL = "cropmodel-1"  # _cropnet.REVISION, which would import torch


def describe(source: WeightsSource) -> ModelInfo:
    """Return what a model's files say of it, without building its network.

    Raises
    ------
    ModelError
        If they can't be read, or it is unclear what model they are of.
    """
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
            bands=_bands(metadata.get("config")),
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
            version=source_version(source, RETINANET),
            kind="detector",
            labels=retinanet_labels(extra, source.name),
            architecture=RETINANET,
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
        bands=_bands(settings),
        weights=source.weights,
    )


def _bands(settings: Mapping[str, Any] | None) -> tuple[int | str, ...] | None:
    bands = (settings or {}).get("bands")
    return None if bands is None else tuple(bands)
