"""What travels with a submitted job: its content, and the user's own modules; never a path of ours.

On the cluster this is the job's working folder. It holds what is named here and nothing else.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.area import area_as_geojson
from ..catalog.errors import JobError
from ..catalog.hrefs import is_remote, local_path

if TYPE_CHECKING:
    from .job import Job

JOB_FILE = "geosweep-job.json"
REPORT = "geosweep-report: "
"""Begins the line of the log that holds the run's report, for programs."""

SAID = "geosweep: "
"""Begins the sentence that says why a run ended."""

INTERRUPTED = 130
"""Exit code of a run that was stopped."""

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".pl")
_LEFT_OUT = ("__pycache__", ".git", ".gitignore", "*.pyc")
_DRIVE = re.compile(r"^[/.~]")


def portable(job: Job) -> Job:
    """The job for another machine: its area of interest inlined, other local paths made absolute.

    Raises
    ------
    SourceError
        If the file of `source.intersects` can't be read.
    """
    source: dict[str, Any] = {}
    area = job.source.intersects
    if isinstance(area, str) and local_path(area) is not None and Path(area).expanduser().exists():
        source["intersects"] = area_as_geojson(area)
    if job.source.stac is not None:
        source["stac"] = _absolute(job.source.stac)
    if job.source.rasters is not None:
        source["rasters"] = tuple(map(_absolute, job.source.rasters))
    changes: dict[str, Any] = {
        "source": job.source.model_copy(update=source),
        "output": job.output.model_copy(update={"path": _absolute(job.output.path)}),
        "detector": job.detector.model_copy(update={"model": _model(job.detector.model)}),
        "crop_models": tuple(
            spec.model_copy(update={"model": _model(spec.model)}) for spec in job.crop_models
        ),
    }
    if job.tile_filter is not None:
        model = _model(job.tile_filter.model)
        changes["tile_filter"] = job.tile_filter.model_copy(update={"model": model})
    return job.model_copy(update=changes)


def local_paths(job: Job) -> list[str]:
    """What in a portable job names a file system, as ``key (path)``."""

    def named() -> Iterator[tuple[str, str]]:
        if isinstance(job.source.intersects, str):
            yield "source.intersects", job.source.intersects
        if job.source.stac is not None:
            yield "source.stac", job.source.stac
        # One is enough to see what is wrong.
        yield from (("source.rasters", href) for href in _files(job.source.rasters or ())[:1])
        yield "output.path", job.output.path

    found = [(key, path) for key, path in named() if not is_remote(path)]
    models = [("detector.model", job.detector.model)]
    if job.tile_filter is not None:
        models.append(("tile_filter.model", job.tile_filter.model))
    models += [("crop_models", spec.model) for spec in job.crop_models]
    found += [(key, model) for key, model in models if _is_path(model)]
    return [f"{key} ({path})" for key, path in found]


def write_bundle(
    folder: Path, job: Job, options: dict[str, Any], modules: Sequence[Path]
) -> list[Path]:
    """Write the job and the user's modules into `folder`; wheels among them are given back.

    Raises
    ------
    JobError
        If a module is missing, or of no kind that can be shipped.
    """
    content = {"job": job.model_dump(mode="json", exclude_defaults=True), "options": options}
    (folder / JOB_FILE).write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
    wheels: list[Path] = []
    for given in modules:
        module = given.expanduser().resolve()
        if module.suffix == ".whl" and module.is_file():
            wheels.append(module)
        elif module.is_dir() and module.name.isidentifier():
            ignore = shutil.ignore_patterns(*_LEFT_OUT)
            shutil.copytree(module, _free(folder, module), ignore=ignore)
        elif module.suffix == ".py" and module.is_file():
            shutil.copy(module, _free(folder, module))
        else:
            raise JobError(
                f"{given} can't be shipped to the cluster: name a package's folder, a .py file or a "
                ".whl file."
            )
    return wheels


def read_bundle(file: Path) -> tuple[Job, dict[str, Any]]:
    """The job and its options, where it has arrived."""
    from .job import Job

    content = json.loads(file.read_text(encoding="utf-8"))
    return Job.from_dict(content["job"], where="the submitted job"), content["options"]


def _free(folder: Path, module: Path) -> Path:
    place = folder / module.name
    if place.exists() or module.stem == "geosweep":
        raise JobError(f"{module} can't be shipped: there is another module named {module.stem}.")
    return place


def _files(hrefs: Sequence[str]) -> list[str]:
    return [href for href in hrefs if not is_remote(href)]


def _absolute(href: str) -> str:
    if is_remote(href) or href.startswith("file://"):
        return href
    return str(Path(href).expanduser().resolve())


def _model(name: str) -> str:
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name


def _is_path(model: str) -> bool:
    """Whether a model is named by a file or folder rather than by a name that holds everywhere."""
    hub = model.startswith("hf:") or is_remote(model)
    return not hub and (_DRIVE.match(model) is not None or model.endswith(_WEIGHTS))
