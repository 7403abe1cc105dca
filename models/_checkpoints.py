"""Tensors and particulars out of weights files, never code."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ..catalog.errors import ModelError
from ._weights import METADATA_KEY, read_header, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from ._sources import WeightsSource


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a torch checkpoint with ``weights_only=True``.

    Raises
    ------
    ModelError
        If it is damaged, or a pickle that would run code.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch errors alike
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"{path}: can't be loaded as plain tensors (weights_only=True) and geosweep never runs "
            "code out of a pickle; load it once where it was made and save its state dict with "
            f"safetensors ({reason})."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path}: holds a {type(content).__name__}, expected a state dict or a checkpoint."
        )
    return content


def read_state(source: WeightsSource) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model's tensors and what is written beside them.

    Returns
    -------
    state
        Tensors by name, floats as fp32.
    extra
        For safetensors config.json's content; for checkpoints everything but the tensors, over it.
    """
    import torch

    if not source.is_checkpoint:
        return read_tensors(source.weights), dict(source.config)
    content = load_checkpoint(source.weights)
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        raise ModelError(f"{source.name}: state_dict is a {type(state).__name__}, not a dict.")
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise ModelError(f"{source.name}: the checkpoint holds no tensors.")
    extra = dict(source.config)
    if state is not content:
        extra.update({k: v for k, v in content.items() if k != "state_dict"})
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, extra


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the ``model.`` that a LightningModule puts before its network's keys."""
    if any(key.startswith("model.") for key in state):
        return {key.removeprefix("model."): value for key, value in state.items()}
    return state


def source_metadata(source: WeightsSource) -> dict[str, Any]:
    """Return the geosweep metadata of a safetensors file or checkpoint; empty for other files."""
    if not source.is_checkpoint:
        return read_header(source.weights).metadata
    metadata = load_checkpoint(source.weights).get(METADATA_KEY, {})
    if not isinstance(metadata, dict):
        raise ModelError(f"{source.name}: its {METADATA_KEY!r} entry is no dict.")
    return metadata


def source_version(source: WeightsSource, architecture: str) -> str:
    """Hash weights, config.json and architecture (16 hex digits)."""
    with source.weights.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    config = hashlib.sha256(source.config_bytes).hexdigest() if source.config_bytes else ""
    return hashlib.sha256(f"{weights}\x1f{config}\x1f{architecture}".encode()).hexdigest()[:16]


def labels_by_index(label_dict: Any, name: str) -> tuple[str, ...]:
    """Turn ``{"Alive": 0, "Dead": 1}`` into ``("Alive", "Dead")``.

    Raises
    ------
    ModelError
        If it is no such dict, or its indices are not 0, 1, 2 …
    """
    if not isinstance(label_dict, dict) or not label_dict:
        raise ModelError(
            f"{name}: no label names beside the weights; put a config.json with "
            '"label_dict": {"Tree": 0} next to them.'
        )
    try:
        by_index = {int(v): str(k) for k, v in label_dict.items()}
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name}: label_dict {label_dict} must map names to indices.") from error
    if sorted(by_index) != list(range(len(label_dict))):
        raise ModelError(f"{name}: label_dict {label_dict} must number its labels 0, 1, 2 …")
    return tuple(by_index[i] for i in range(len(by_index)))


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict that must fit: names and shapes.

    Counters of batch norm (``num_batches_tracked``) may lack; they don't matter to predictions.

    Raises
    ------
    ModelError
        Naming a few of the keys that don't fit, and their count.
    """
    try:
        result = network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ModelError(
            f"{name}: {len(lines)} tensor(s) have another shape than the architecture asks for: "
            f"{' '.join(lines[:2])}"
        ) from error
    missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
    problems = [
        f"{len(keys)} {what} (such as {', '.join(keys[:3])})"
        for what, keys in (("missing", missing), ("unexpected", result.unexpected_keys))
        if keys
    ]
    if problems:
        raise ModelError(
            f"{name}: the weights don't fit the architecture: {' and '.join(problems)}; check that "
            "this file belongs to this kind of model."
        )
