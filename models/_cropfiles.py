"""The part of CropModel that reads and writes files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import torch

from ..catalog.errors import ModelError
from ._checkpoints import labels_by_index, load_strictly, read_state, source_metadata
from ._cropnet import REVISION, guess_resnet
from ._sources import FactorySource, WeightsSource, find_source
from ._weights import FORMAT, METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from ._cropmodel import BareCropModel

_Model = TypeVar("_Model", bound="BareCropModel")
_SETTINGS = ("resize", "normalize", "resize_interpolation", "expand", "bands", "num_bands", "lr")


class CropModelFiles:
    """How a crop model is saved and loaded; see `CropModel`."""

    if TYPE_CHECKING:  # CropModel has them
        label_dict: dict[str, int]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the settings into a Lightning checkpoint."""
        checkpoint[METADATA_KEY] = _metadata(cast("BareCropModel", self), {})
        checkpoint["label_dict"] = dict(self.label_dict)  # as DeepForest's have it

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, *, model: nn.Module | None = None, **settings: Any
    ) -> Self:
        """Load a checkpoint of Lightning's trainer, as plain tensors only.

        Parameters
        ----------
        checkpoint_path
            The ``.ckpt`` file.
        model
            The network, if it was not built by name.
        **settings
            Replace what the checkpoint says (`resize`, `expand`, `label_dict` …), or add what it
            can't hold (`crop_transform`).

        Raises
        ------
        ModelError
            If the file is no such checkpoint or does not fit.
        """
        return load(cast("Any", cls), checkpoint_path, model, settings)

    def save_pretrained(
        self, folder: str | Path, *, particulars: Mapping[str, Any] | None = None
    ) -> Path:
        """Write ``model.safetensors`` and ``config.json`` in DeepForest's layout.

        Parameters
        ----------
        folder
            Where to; made if it is not there.
        particulars
            For `model_info`: any of `description`, `licence`, `gsd`, `metrics`, `training_data`.
        """
        return save(cast("BareCropModel", self), Path(folder), dict(particulars or {}))

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, model: nn.Module | None = None, **settings: Any
    ) -> Self:
        """Load what `save_pretrained` or DeepForest wrote: folder, file or ``hf:owner/repo``.

        Parameters
        ----------
        source
            What `load_crop_model` takes.
        model, **settings
            As for `load_from_checkpoint`.

        Raises
        ------
        ModelError
            If there is no such model or it does not fit.
        """
        return load(cast("Any", cls), source, model, settings)


def settle_classes(
    num_classes: int | None, label_dict: Mapping[str, int] | None
) -> tuple[int | None, dict[str, int]]:
    """Bring the number of classes and their names together.

    Raises
    ------
    ModelError
        If they contradict each other or the indices are not 0, 1, 2 …
    """
    if label_dict is None:
        return num_classes, {str(i): i for i in range(num_classes or 0)}
    labels = labels_by_index(dict(label_dict), "CropModel")
    if num_classes is not None and num_classes != len(labels):
        raise ModelError(
            f"num_classes is {num_classes}, but label_dict names {len(labels)} labels "
            f"({', '.join(labels[:5])}); give one of the two, or make them fit."
        )
    return len(labels), {name: i for i, name in enumerate(labels)}


def check_normalize(
    normalize: Sequence[Sequence[float]], num_bands: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, one number for each channel.

    Raises
    ------
    ModelError
        If they are not that.
    """
    mean, std = (tuple(float(value) for value in part) for part in normalize)
    if {len(mean), len(std)} != {num_bands} or min(std) <= 0:
        raise ModelError(
            f"normalize is {mean}, {std}: give {num_bands} means and {num_bands} standard deviations "
            "above 0, one for each channel of the network's input."
        )
    return mean, std


def check_settings(resize: Sequence[int], expand: int, interpolation: str, balance: str) -> None:
    """Raise ModelError for values that can't be."""
    if len(resize) != 2 or min(resize) < 1:
        raise ModelError(f"resize is {resize}: give height and width in pixels.")
    if expand < 0:
        raise ModelError(f"expand is {expand}: give 0 or more pixels of context.")
    for key, value, choices in (
        ("resize_interpolation", interpolation, ("bilinear", "nearest")),
        ("balance", balance, ("none", "sample", "weight")),
    ):
        if value not in choices:
            raise ModelError(f"{key} is {value!r}: give {' or '.join(choices)}.")


def load(
    cls: type[_Model], spec: str | Path, model: nn.Module | None, settings: dict[str, Any]
) -> _Model:
    """Load a crop model from wherever `find_source` finds one."""
    source = find_source(spec)
    if isinstance(source, FactorySource):
        raise ModelError(f"{spec}: expected weights, not an import path.")
    return load_source(cls, source, model, settings)


def load_source(
    cls: type[_Model],
    source: WeightsSource,
    model: nn.Module | None = None,
    settings: dict[str, Any] | None = None,
) -> _Model:
    """Build a crop model and fill it with a source's weights, which must fit exactly."""
    state, extra = read_state(source)
    own = crop_settings(source, extra)
    state = {key.removeprefix("model."): value for key, value in state.items()}
    architecture = own.get("architecture") or guess_resnet(state)
    settings = dict(settings or {})
    label_dict = settings.pop("label_dict", own.get("label_dict"))
    labels_by_index(label_dict, source.name)
    _check_own_code(cls, source.name, own, architecture, model, settings)
    arguments = {k: own[k] for k in _SETTINGS if own.get(k) is not None} | settings
    crop_model = cls(
        label_dict=label_dict,
        model=model or (None if architecture == "custom" else architecture),
        **arguments,
    )
    assert crop_model.model is not None
    load_strictly(crop_model.model, state, source.name)
    crop_model.name = source.name
    return crop_model.eval()


def _check_own_code(
    cls: type[BareCropModel],
    name: str,
    own: dict[str, Any],
    architecture: str | None,
    model: nn.Module | None,
    settings: dict[str, Any],
) -> None:
    """Refuse to guess what a file can't hold: a network or a transform of the user's own code."""
    from ._cropmodel import BareCropModel

    creates = cls.create_model is not BareCropModel.create_model
    if model is None and architecture in (None, "custom") and not creates:
        raise ModelError(
            f"{name}: the network is not one that can be built by name; "
            "give it as CropModel.load_from_checkpoint(path, model=network)."
        )
    transforms = (
        cls.get_transform is not BareCropModel.get_transform
        or cls.normalize is not BareCropModel.normalize
    )
    if own.get("own_transform") and not transforms and settings.get("crop_transform") is None:
        raise ModelError(
            f"{name}: was trained with a transform of its own, which the file can't hold: give it as "
            "CropModel.from_pretrained(path, crop_transform=function), load it by the class that has "
            "it, or name a package.module:factory that does either."
        )


def crop_settings(source: WeightsSource, extra: dict[str, Any]) -> dict[str, Any]:
    """Collect a crop model's settings from our metadata, our config or DeepForest's.

    Later ones win: DeepForest's ``cropmodel`` section, its checkpoint's ``label_dict``, ours.
    """
    theirs = extra.get("cropmodel")
    found: dict[str, Any] = dict(theirs) if isinstance(theirs, dict) else {}
    if "label_dict" in extra and not found.get("label_dict"):
        found["label_dict"] = extra["label_dict"]
    metadata = source_metadata(source)
    if metadata.get("kind") == "cropmodel":
        found.update(metadata["config"])
    ours = extra.get(METADATA_KEY)
    if isinstance(ours, dict):
        found.update(ours.get("config", ours))
    return found


def save(crop_model: BareCropModel, folder: Path, particulars: dict[str, Any]) -> Path:
    """Write ``model.safetensors`` (fp32, keys with ``model.``) and ``config.json``."""
    from safetensors.torch import save_file

    if crop_model.model is None:
        raise ModelError("CropModel has no network yet: nothing to save.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder}: can't be made a folder ({error.strerror}).") from error
    tensors = {
        f"model.{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in crop_model.model.state_dict().items()
    }
    settings = crop_model.settings()
    text = json.dumps(_metadata(crop_model, particulars), sort_keys=True)
    save_file(tensors, str(folder / "model.safetensors"), {METADATA_KEY: text, "format": "pt"})
    theirs = {k: settings[k] for k in ("label_dict", "resize", "resize_interpolation", "expand")}
    config = {"cropmodel": {**theirs, "lr": settings["lr"]}, METADATA_KEY: settings}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def _metadata(crop_model: BareCropModel, particulars: dict[str, Any]) -> dict[str, Any]:
    """What `model_info` wants to know, and all that predictions depend on beside the weights."""
    return {
        "format": FORMAT,
        "kind": "cropmodel",
        "architecture": REVISION,
        "config": crop_model.settings(),
        "labels": list(crop_model.labels),
        **particulars,
    }
