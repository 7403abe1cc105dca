"""The models behind an output, as the collection describes them (STAC's MLM extension).

A document has one set of ``mlm:`` fields, and since its version 1.4 the extension keeps name, input
and output off assets. So the collection describes what was done to each window as one model, with
an input and an output for each network, named like the columns; and each network with a file has
an asset of role ``mlm:model`` with what assets may say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .hrefs import public_href

if TYPE_CHECKING:
    import pystac
    from pystac.extensions.mlm import ModelInput, ModelOutput, TaskType

Task = Literal["object-detection", "classification", "scene-classification"]

# What the extension takes for a version; others are left out.
_SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[\w.-]+)?(\+[0-9A-Za-z.-]+)?")
_LICENCE = re.compile(r"[\w.+-]+")  # what STAC takes for one: an SPDX identifier
_ROWS: dict[str, str] = {
    "object-detection": "detection",
    "classification": "detection",
    "scene-classification": "window",
}
_MEANINGS: dict[str, str] = {
    "object-detection": "boxes in pixels of the window: xmin, ymin, xmax, ymax",
    "classification": "probability of each class for each detection",
    "scene-classification": "score of each class for each window",
}


@dataclass(frozen=True, slots=True)
class UsedModel:
    """A network that made an output's rows.

    Parameters
    ----------
    role
        ``detector``, ``tile_filter``, or a crop model's prefix of columns.
    name, version
        How the job calls it; hash of its weights.
    task
        What it does.
    labels
        Its classes by index.
    size
        (channels, height, width) of its input; -1 for any.
    architecture
        Name of the network; empty where not known.
    href
        Where its weights are; None where nobody but the job's author knows.
    artifact
        What wrote the weights file, for example ``safetensors.torch.save_file``.
    licence
        An SPDX identifier; what is none is left out.
    """

    role: str
    name: str
    version: str
    task: Task
    labels: tuple[str, ...]
    size: tuple[int, int, int] = (3, -1, -1)
    architecture: str = ""
    href: str | None = None
    artifact: str = ""
    licence: str = ""


def describe_models(
    collection: pystac.Collection, models: Sequence[UsedModel], *, framework_version: str = ""
) -> None:
    """Write `models` into a collection: its ``mlm:`` fields, and an asset for each weights file.

    Parameters
    ----------
    collection
        Changed in place.
    models
        The detector first. Without any, nothing is written.
    framework_version
        Of PyTorch.
    """
    from pystac.extensions.mlm import MLMExtension

    if not models:
        return
    known = [model.architecture for model in models if model.architecture]
    MLMExtension.ext(collection, add_if_missing=True).apply(
        name=" with ".join(_name(model.name) for model in models),
        architecture=" + ".join(known) or "unknown",
        tasks=list(dict.fromkeys(_task(model) for model in models)),
        framework="PyTorch",
        framework_version=_semantic(framework_version),
        input=[_input(model) for model in models],
        output=[_output(model) for model in models],
    )
    # pystac writes null for what it wasn't told, and null would say that training began from scratch.
    for unknown in ("mlm:pretrained_source", "mlm:accelerator"):
        collection.extra_fields.pop(unknown, None)
    for model in models:
        if model.href is not None:
            _add_asset(collection, model, framework_version)


def _add_asset(collection: pystac.Collection, model: UsedModel, framework_version: str) -> None:
    import pystac
    from pystac.extensions.mlm import AssetGeneralMLMExtension
    from pystac.extensions.version import BaseVersionExtension

    fields = {
        "mlm:architecture": model.architecture,
        "mlm:tasks": [model.task],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": _semantic(framework_version),
        "license": model.licence if _LICENCE.fullmatch(model.licence) else "",
    }
    asset = pystac.Asset(
        public_href(model.href or ""),
        title=model.name,
        description=f"weights of {model.role}",
        media_type="application/octet-stream",
        roles=["mlm:model", "mlm:weights"],
        extra_fields={name: value for name, value in fields.items() if value},
    )
    collection.add_asset(f"model-{model.role}", asset)
    AssetGeneralMLMExtension.ext(asset).apply(artifact_type=model.artifact or "torch.save")
    BaseVersionExtension.ext(asset, add_if_missing=True).version = model.version


def _input(model: UsedModel) -> ModelInput:
    from pystac.extensions.mlm import InputStructure, ModelInput
    from pystac.extensions.raster import DataType

    structure = InputStructure.create(
        [-1, *model.size], ["batch", "channel", "height", "width"], DataType.UINT8
    )
    # No names of bands: they would have to be described here, and are the source's.
    return ModelInput.create(name=model.role, bands=[], input=structure)


def _output(model: UsedModel) -> ModelOutput:
    from pystac.extensions.classification import Classification
    from pystac.extensions.mlm import ModelOutput, ResultStructure
    from pystac.extensions.raster import DataType

    boxes = model.task == "object-detection"
    structure = ResultStructure.create(
        [-1, 4 if boxes else len(model.labels)],
        [_ROWS[model.task], "coordinate" if boxes else "class"],
        DataType.FLOAT32,
    )
    classes = [
        Classification.create(index, description=label, name=_slug(label), title=label)
        for index, label in enumerate(model.labels)
    ]
    return ModelOutput.create(
        name=model.role,
        tasks=[_task(model)],
        result=structure,
        description=_MEANINGS[model.task],
        classes=classes,
    )


def _task(model: UsedModel) -> TaskType:
    from pystac.extensions.mlm import TaskType

    return TaskType(model.task)


def _semantic(version: str) -> str | None:
    return version if _SEMANTIC.fullmatch(version) else None


def _name(name: str) -> str:
    """A model's name as the extension takes it: letters, digits, ``_ . -`` and blanks."""
    last = name.replace("\\", "/").rstrip("/")
    if last.startswith(("/", ".", "~")):  # a path
        last = last.rpartition("/")[2]
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-._")
    return slug if slug[:1].isalpha() and len(slug) > 1 else f"model-{slug or 'x'}"


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-") or "-"
