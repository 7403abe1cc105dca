"""Weights files of geosweep's own models: safetensors with a JSON card in the header."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

METADATA_KEY = "geosweep"
"""The entry of the safetensors metadata that holds the JSON."""
FORMAT = 1
"""Version of that JSON."""
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class WeightsFile:
    """What the header of a safetensors file says, without its tensors.

    Parameters
    ----------
    path
        The file.
    metadata
        The parsed ``geosweep`` metadata; empty for files of other makers.
    keys
        Names of the tensors.
    """

    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


def read_header(path: str | Path) -> WeightsFile:
    """Read the header of a safetensors file with plain file access (neither torch nor tensors).

    Raises
    ------
    ModelError
        If the file is missing or not a safetensors file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _HEADER_LIMIT:
                raise ValueError(f"header of {size} bytes")
            header = json.loads(file.read(size))
        metadata = header.pop("__metadata__", {})
        own = json.loads(metadata.get(METADATA_KEY, "{}"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such weights file.") from error
    except (OSError, ValueError, AttributeError, struct.error) as error:
        raise ModelError(
            f"{path}: not a readable safetensors file ({error}); save the weights with "
            "safetensors, or name a .ckpt/.pt checkpoint."
        ) from error
    if own.get("format", FORMAT) != FORMAT:
        raise ModelError(
            f"{path}: has metadata format {own['format']}, this geosweep reads {FORMAT}; "
            "upgrade geosweep."
        )
    return WeightsFile(path, own, tuple(header))


def write_weights(
    path: str | Path, state: Mapping[str, Tensor], metadata: dict[str, Any], *, half: bool = True
) -> None:
    """Write tensors and metadata to a safetensors file.

    Parameters
    ----------
    path
        The file to write.
    state
        A state dict; counters of batch norm are left out.
    metadata
        JSON-ready; stored under ``geosweep``.
    half
        Write floats as fp16, else as they are.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().to(
            "cpu", torch.float16 if half and value.is_floating_point() else value.dtype
        )
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    text = json.dumps({"format": FORMAT, **metadata}, sort_keys=True)
    save_file(tensors, str(path), metadata={METADATA_KEY: text})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file, floats as fp32."""
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except Exception as error:  # safetensors raises its own class, which is not exported stably
        raise ModelError(f"{path}: not a readable safetensors file ({error}).") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
