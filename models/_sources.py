"""From what the user calls a model to the files it is in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..catalog.errors import ModelError

_HERE = Path(__file__).parent
_PACKAGED = {
    "geosweep/tree": "geosweep-tree",
    "geosweep/alive-dead": "geosweep-alive-dead",
}
_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".pl")
_FACTORY = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
_FORMS = (
    "a packaged name (`geosweep models list`), hf:owner/repo, a folder with model.safetensors, a "
    ".safetensors or .ckpt/.pt/.pth/.pl file, or package.module:factory"
)


@dataclass(frozen=True)
class WeightsSource:
    """Weights in files.

    Parameters
    ----------
    name
        How the user called it.
    weights
        A safetensors file or a torch checkpoint.
    config
        What config.json beside it says; empty without one.
    config_bytes
        That file's content, part of the model's version.
    card
        The model card, for packaged models.
    """

    name: str
    weights: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_bytes: bytes = b""
    card: Path | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether the weights are a torch checkpoint rather than safetensors."""
        return self.weights.suffix in _CHECKPOINTS


@dataclass(frozen=True)
class FactorySource:
    """A callable that the user named by import path."""

    name: str
    module: str
    attribute: str


def packaged_names() -> tuple[str, ...]:
    """Names of the models shipped inside the package."""
    return tuple(_PACKAGED)


def registered_names() -> tuple[str, ...]:
    """Names that installed packages registered as entry points in the group ``geosweep.models``."""
    return tuple(sorted(entry.name for entry in entry_points(group="geosweep.models")))


def find_source(spec: str | Path) -> WeightsSource | FactorySource:
    """Find a model's files, fetching them from the Hugging Face hub where `spec` says so.

    Raises
    ------
    ModelError
        If `spec` has no known form or names nothing that is there.
    """
    name = str(spec)
    if name in _PACKAGED:
        stem = _PACKAGED[name]
        weights = _HERE / "weights" / f"{stem}.safetensors"
        return WeightsSource(name, weights, card=_HERE / "cards" / f"{stem}.md")
    if name.startswith("hf:"):
        return _from_hub(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(name, path)
    if path.suffix in (".safetensors", *_CHECKPOINTS):
        if not path.is_file():
            raise ModelError(f"{name}: no such weights file.")
        return WeightsSource(name, path, *_read_config(path.with_name("config.json")))
    for entry in entry_points(group="geosweep.models"):
        if entry.name == name:
            return FactorySource(name, entry.module, entry.attr)
    if _FACTORY.match(name):
        module, _, attribute = name.partition(":")
        return FactorySource(name, module, attribute)
    if name.startswith("weecology/"):
        return _from_hub(f"hf:{name}", name)
    if name.startswith("geosweep/"):
        names = ", ".join(_PACKAGED)
        raise ModelError(f"{name}: no such packaged model; there are {names}.")
    raise ModelError(f"{name}: no such model; give {_FORMS}.")


def _from_folder(name: str, folder: Path) -> WeightsSource:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{name}: the folder holds no model.safetensors.")
    return WeightsSource(name, weights, *_read_config(folder / "config.json"))


def _from_hub(spec: str, name: str | None = None) -> WeightsSource:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repo, _, revision = spec.removeprefix("hf:").partition("@")
    if repo.count("/") != 1:
        raise ModelError(f"{spec}: expected hf:owner/repo or hf:owner/repo@revision.")
    try:
        weights = hf_hub_download(repo, "model.safetensors", revision=revision or None)
        try:
            config = hf_hub_download(repo, "config.json", revision=revision or None)
        except EntryNotFoundError:
            config = Path(weights).with_name("config.json")
    except Exception as error:  # the hub raises a dozen kinds; the remedy is the same
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{name or spec}: can't be fetched from the Hugging Face hub ({reason}); download "
            "model.safetensors and config.json into a folder and name that."
        ) from error
    return WeightsSource(name or spec, Path(weights), *_read_config(Path(config)))


def _read_config(path: Path) -> tuple[dict[str, Any], bytes]:
    if not path.is_file():
        return {}, b""
    content = path.read_bytes()
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected a JSON object with num_classes and label_dict.")
    return config, content
