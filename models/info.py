"""What is known of a model without building its network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["detector", "cropmodel", "tilefilter"]
KIND_NAMES: dict[Kind, str] = {
    "detector": "detector",
    "cropmodel": "crop model",
    "tilefilter": "tile filter",
}
"""What each kind is called in a sentence."""


@dataclass(frozen=True)
class ModelInfo:
    """A model's particulars, as its weights file carries them.

    Parameters
    ----------
    name
        How it was asked for.
    version
        16 hex digits: hash of the weights' content, config.json and the architecture's revision.
    kind
        ``detector``, ``cropmodel`` or ``tilefilter``.
    labels
        Label names by index; empty where only building the model would tell (import paths).
    architecture
        Name and revision of the network, for example ``singleshot-2``.
    description, licence
        Empty where the file does not say.
    window_size
        Side of the windows it was trained on, in pixels.
    gsd
        Ground sample distance it was trained on, in metres.
    score_threshold, nms_iou
        The model's own, applied unless `load_detector` is told others.
    empty_threshold
        A tile filter's own: score of ``empty`` from which a window may be dropped.
    bands
        Bands of a crop model's crops, by 1-based numbers or names; None for the detector's three.
    metrics
        Measured accuracy, as in the model card.
    training_data
        What it was trained on.
    weights, card
        The files, where there are any.
    """

    name: str
    version: str
    kind: Kind
    labels: tuple[str, ...] = ()
    architecture: str = ""
    description: str = ""
    licence: str = ""
    window_size: int | None = None
    gsd: float | None = None
    score_threshold: float | None = None
    nms_iou: float | None = None
    empty_threshold: float | None = None
    bands: tuple[int | str, ...] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    training_data: str = ""
    weights: Path | None = None
    card: Path | None = None
