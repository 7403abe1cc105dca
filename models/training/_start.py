"""What a detector's training starts from: random weights, a backbone's, or a whole detector's."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...catalog.errors import ModelError
from .._architectures import ARCHITECTURES, find_architecture, read_network
from .._backbones import load_backbone
from .._describe import describe
from .._sources import WeightsSource, find_source
from ._transfer import transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from .._netconfig import NetworkConfig
    from .detectorconfig import ModelConfig

_log = logging.getLogger("geosweep")


@dataclass(frozen=True)
class Start:
    """A network to train, and what `DetectorModule` stores with it (see there)."""

    network: nn.Module
    architecture: str
    config: NetworkConfig
    score_threshold: float
    nms_iou: float
    window_size: int | None = 400
    gsd: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def start_network(config: ModelConfig, labels: Sequence[str]) -> Start:
    """Make the network that a `model:` block asks for.

    Raises
    ------
    ModelError, TrainingError
        If weights can't be found or don't fit, or a setting is wrong.
    """
    start = _anew(config, len(labels)) if config.start is None else _go_on(config, labels)
    said = {"description": config.description, "licence": config.licence}
    score = config.score_threshold
    return replace(
        start,
        score_threshold=score if isinstance(score, float) else start.score_threshold,
        nms_iou=config.nms_iou or start.nms_iou,
        gsd=config.gsd or start.gsd,
        metadata=start.metadata | {name: text for name, text in said.items() if text},
    )


def find_weights(name: str) -> WeightsSource:
    """Find a detector's files.

    Raises
    ------
    ModelError
        If there are none, or `name` is an import path.
    """
    source = find_source(name)
    if not isinstance(source, WeightsSource):
        raise ModelError(f"{name}: is an import path, but training needs weights in files.")
    return source


def _anew(config: ModelConfig, num_classes: int) -> Start:
    architecture = ARCHITECTURES[config.architecture]
    shape = config.network_config(num_classes)
    score, nms = architecture.score_threshold, architecture.nms_iou
    network = architecture.build(shape, score_threshold=score, nms_iou=nms)
    if config.backbone_weights is not None:
        name = getattr(shape, "backbone", "resnet50")
        load_backbone(network.backbone.body, name, config.backbone_weights)  # type: ignore[union-attr, arg-type]
    return Start(network, architecture.revision, shape, score, nms)


def _go_on(config: ModelConfig, labels: Sequence[str]) -> Start:
    source = find_weights(config.start or "")
    info = describe(source)
    if info.kind != "detector":
        raise ModelError(f"{config.start}: is no detector; model.start must name one.")
    score, nms = float(info.score_threshold or 0), float(info.nms_iou or 0)
    old, before = read_network(source, info, score=score, nms=nms)
    shape = config.network_config(len(labels), before)
    architecture = find_architecture(info.architecture, source.name)
    network = architecture.build(shape, score_threshold=score, nms_iou=nms)
    transfer(old, network, info.labels, labels)
    if tuple(labels) != info.labels:
        new = [label for label in labels if label not in info.labels]
        _log.info(
            "%s knows %s; the layer of the classes is replaced for %s%s",
            source.name,
            ", ".join(info.labels),
            ", ".join(labels),
            f", new: {', '.join(new)}" if new else "",
        )
    return Start(
        network,
        info.architecture,
        shape,
        score,
        nms,
        info.window_size,
        info.gsd,
        {"start": source.name, "start_version": info.version},
    )
