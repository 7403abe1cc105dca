"""The detection networks that geosweep can build, by name; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..catalog.errors import ModelError
from ._netconfig import FasterRCNNConfig, NetworkConfig, RetinaNetConfig, SingleShotConfig

if TYPE_CHECKING:
    from torch import nn

    from ._sources import WeightsSource
    from .info import ModelInfo

SINGLESHOT = "singleshot-2"
RETINANET = "retinanet-resnet50-fpn-1"
FASTERRCNN = "fasterrcnn-resnet50-fpn-1"


@dataclass(frozen=True)
class Architecture:
    """A kind of network.

    Parameters
    ----------
    revision
        Its name in weights files, raised whenever the same weights would give other boxes.
    config
        What shapes it.
    module
        Where ``build(config, score_threshold=, nms_iou=)`` is.
    score_threshold, nms_iou
        What it starts with when it is trained anew.
    """

    revision: str
    config: type[NetworkConfig]
    module: str
    score_threshold: float
    nms_iou: float

    def build(self, config: Any, *, score_threshold: float, nms_iou: float) -> nn.Module:
        """Build the network with random weights."""
        build = import_module(self.module, __package__).build
        return build(config, score_threshold=score_threshold, nms_iou=nms_iou)


ARCHITECTURES = {
    "singleshot": Architecture(SINGLESHOT, SingleShotConfig, "._singleshot", 0.3, 0.5),
    "retinanet": Architecture(RETINANET, RetinaNetConfig, "._retinanet", 0.1, 0.05),
    "fasterrcnn": Architecture(FASTERRCNN, FasterRCNNConfig, "._fasterrcnn", 0.1, 0.5),
}
"""By the name that a configuration calls them."""
_BY_REVISION = {a.revision: a for a in ARCHITECTURES.values()}


def find_architecture(revision: str, name: str) -> Architecture:
    """Return the architecture that the weights file `name` asks for.

    Raises
    ------
    ModelError
        If this release does not know it.
    """
    if revision not in _BY_REVISION:
        raise ModelError(
            f"{name}: has the architecture {revision}, which this geosweep does not know (it builds "
            f"{', '.join(_BY_REVISION)}); upgrade geosweep, or give the network to "
            "DetectorModule.load if it is your own."
        )
    return _BY_REVISION[revision]


def read_network(
    source: WeightsSource, info: ModelInfo, *, score: float, nms: float
) -> tuple[nn.Module, NetworkConfig]:
    """Build a detector's network and load its weights, which must fit exactly.

    Parameters
    ----------
    source
        The files.
    info
        What they say, from `describe`.
    score, nms
        Score threshold and NMS IoU.

    Returns
    -------
    network
        In training mode, nothing folded.
    config
        What shapes it.

    Raises
    ------
    ModelError
        If the architecture is unknown, or keys, shapes or the number of classes don't fit.
    """
    from ._checkpoints import load_strictly, read_state, source_metadata, without_prefix

    architecture = find_architecture(info.architecture, source.name)
    state, _ = read_state(source)
    state = without_prefix(state)
    metadata = source_metadata(source)
    if metadata:
        config = architecture.config.from_dict(metadata["config"])
    else:
        from ._retinanet import published_config

        config = published_config(state, info.labels, source.name)
    network = architecture.build(config, score_threshold=score, nms_iou=nms)
    load_strictly(network, state, source.name)
    return network, config
