"""A job's models as the output's collection describes them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog.mlm import Task, UsedModel

if TYPE_CHECKING:
    from .job import Job
    from .settings import ModelFace

_PACKAGE = Path(__file__).parents[1]
_SAFETENSORS = ".safetensors"


def used_models(
    job: Job,
    detector: ModelFace,
    crops: Mapping[str, ModelFace],
    tile_filter: ModelFace | None,
) -> tuple[UsedModel, ...]:
    """Describe the models of a job, the detector first."""
    side = job.windows.size
    used = [_used("detector", detector, "object-detection", (3, side, side))]
    for name, face in crops.items():
        bands = 3 if face.bands is None else len(face.bands)
        used.append(_used(name, face, "classification", (bands, -1, -1)))
    if tile_filter is not None:
        used.append(_used("tile_filter", tile_filter, "scene-classification", (3, side, side)))
    return tuple(used)


def lineage(job: Job, used: tuple[UsedModel, ...]) -> str:
    """Say in a sentence or two what was done to the rasters."""
    windows = job.windows
    text = f"Windows of {windows.size} pixels, overlapping by {windows.overlap:.0%}"
    if windows.resolution is not None:
        text += f", resampled to {windows.resolution:g} m"
    text += f", through {used[0].name} (version {used[0].version})"
    roles = {"classification": "crops classified by", "scene-classification": "empty windows by"}
    for model in used[1:]:
        text += f"; {roles[model.task]} {model.name} (version {model.version})"
    return f"{text}; detections of all windows merged."


def _used(role: str, face: ModelFace, task: Task, size: tuple[int, int, int]) -> UsedModel:
    weights = face.weights
    safe = weights is not None and weights.suffix == _SAFETENSORS
    return UsedModel(
        role,
        face.name,
        face.version,
        task,
        face.labels,
        size,
        architecture=face.architecture,
        href=None if weights is None else _href(face.name, weights),
        artifact="safetensors.torch.save_file" if safe else "torch.save",
        licence=face.licence,
    )


def _href(name: str, weights: Path) -> str:
    """Where others find the weights: the hub, our package, or a path on this machine."""
    hub = name.removeprefix("hf:")
    if hub != name or name.startswith("weecology/"):
        repo, _, revision = hub.partition("@")
        return f"https://huggingface.co/{repo}/resolve/{revision or 'main'}/{weights.name}"
    path = weights.resolve()
    if path.is_relative_to(_PACKAGE):
        inside = path.relative_to(_PACKAGE).as_posix()
        return f"pkg:pypi/geosweep@{version('geosweep')}#{inside}"
    return str(path)
