"""What every stage must know of a job, worked out once by the driver."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..catalog.errors import JobError
from ..catalog.signing import check_signer
from .bands import BandRequest
from .rows import CropColumns, RowSchema
from .used_models import used_models

if TYPE_CHECKING:
    from ..catalog.mlm import UsedModel
    from .job import Job
    from .scene_reader import SceneTask

log = logging.getLogger("geosweep")
Kind = Literal["detector", "cropmodel", "tilefilter"]
_PLACES: dict[Kind, tuple[str, str]] = {
    "detector": ("a detector", "detector.model"),
    "cropmodel": ("a crop model", "crop_models"),
    "tilefilter": ("a tile filter", "tile_filter"),
}
CPU_BATCH = 8
GPU_BATCH = 32


@dataclass(frozen=True, slots=True)
class ModelFace:
    """Name, version and label names of a model, and the bands of a crop model's crops (None for the
    detector's): all that planning needs of it. The rest is for the output's collection.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    bands: tuple[int | str, ...] | None = None
    architecture: str = ""
    licence: str = ""
    weights: Path | None = None

    @classmethod
    def look_up(cls, name: str, kind: Kind) -> ModelFace:
        """Read a model's particulars; one made by a user's function has to be made to tell them."""
        from ..models import load_crop_model, load_detector, load_tile_filter, model_info

        info = model_info(name, kind)
        if info.kind != kind:
            wanted, key = _PLACES[kind]
            raise JobError(f"{name} is not {wanted}, so it can't stand under {key}.")
        labels, bands = tuple(info.labels), info.bands
        if not labels:
            load: Any = {
                "detector": load_detector,
                "cropmodel": load_crop_model,
                "tilefilter": load_tile_filter,
            }[kind]
            model = load(name, device="cpu")
            labels, bands = tuple(model.labels), getattr(model, "bands", None)
        return cls(
            info.name, info.version, labels, bands, info.architecture, info.licence, info.weights
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """A job with its models' versions resolved.

    Parameters
    ----------
    job
        As the user wrote it.
    fingerprint
        Hash of all that decides a scene's rows.
    schema
        Columns of the output.
    models
        Version of each model by its column prefix; the keys of the others are ``detector`` and
        ``tile_filter``.
    crop_bands
        Bands and rescaling of each crop model: the job's word, or else the model's.
    used
        The models as the output's collection describes them.
    keep_old
        Whether records that are replaced by those of another version are kept beside them.
    """

    job: Job
    fingerprint: str
    schema: RowSchema
    models: dict[str, str]
    crop_bands: dict[str, BandRequest] = field(default_factory=dict)
    used: tuple[UsedModel, ...] = ()
    keep_old: bool = False

    @classmethod
    def resolve(cls, job: Job) -> Settings:
        """Look the job's models up, without loading them.

        Raises
        ------
        ModelError
            If one can't be found or read.
        SourceError
            If there is nothing to sign hrefs with.
        """
        job = _absolute(job)
        check_signer(job.source.sign)
        crops = {spec.name: ModelFace.look_up(spec.model, "cropmodel") for spec in job.crop_models}
        tile_filter = None
        if job.tile_filter is not None:
            tile_filter = ModelFace.look_up(job.tile_filter.model, "tilefilter")
        return cls.build(job, ModelFace.look_up(job.detector.model, "detector"), crops, tile_filter)

    @classmethod
    def build(
        cls,
        job: Job,
        detector: ModelFace,
        crops: Mapping[str, ModelFace],
        tile_filter: ModelFace | None = None,
    ) -> Settings:
        """Settings for models that are known already."""
        versions = {"detector": detector.version} | {n: c.version for n, c in crops.items()}
        if tile_filter is not None:
            versions["tile_filter"] = tile_filter.version
            if not set(tile_filter.labels) & set(detector.labels):
                log.warning(
                    "tile filter %s knows %s, and detector %s looks for %s: it may drop windows that "
                    "hold them",
                    *(tile_filter.name, ", ".join(tile_filter.labels)),
                    *(detector.name, ", ".join(detector.labels)),
                )
        schema = RowSchema(
            labels=detector.labels,
            model=f"{detector.name}@{detector.version}",
            crops=tuple(
                CropColumns(spec.name, crops[spec.name].labels, spec.scores)
                for spec in job.crop_models
            ),
            crs=job.output.crs,
        )
        bands = {
            spec.name: BandRequest(spec.bands or crops[spec.name].bands, spec.rescale)
            for spec in job.crop_models
        }
        used = used_models(job, detector, crops, tile_filter)
        return cls(job, job.fingerprint(versions), schema, versions, bands, used)

    @property
    def crop_classes(self) -> dict[str, int]:
        """Number of classes of each crop model."""
        return {crop.name: len(crop.labels) for crop in self.schema.crops}

    def batch_size(self, device: str, cores: int = 1) -> int:
        """Windows in a batch: the job's, or what suits the device; on a CPU none of its cores is idle."""
        chosen = self.job.detector.batch_size
        if isinstance(chosen, int):
            return chosen
        return max(CPU_BATCH, 2 * cores) if device == "cpu" else GPU_BATCH

    def scene_version(self, task: SceneTask) -> str:
        """Hash of all that decides this scene's rows (16 hex digits): the raster's own version, the
        job's fingerprint, and the limits that neighbours and the area of interest set.
        """
        parts = (task.scene.source_version, self.fingerprint, task.region.version)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _absolute(job: Job) -> Job:
    """The job with local paths made absolute: actors have working directories of their own."""

    def model(name: str) -> str:
        return str(Path(name).resolve()) if Path(name).exists() else name

    path = job.output.path
    tiles = job.tile_filter
    if tiles is not None:
        tiles = tiles.model_copy(update={"model": model(tiles.model)})
    return job.model_copy(
        update={
            "tile_filter": tiles,
            "detector": job.detector.model_copy(update={"model": model(job.detector.model)}),
            "crop_models": tuple(
                spec.model_copy(update={"model": model(spec.model)}) for spec in job.crop_models
            ),
            "output": job.output.model_copy(
                update={"path": path if "://" in path else str(Path(path).resolve())}
            ),
        }
    )


def software_versions() -> dict[str, str]:
    """Versions of what decides pixels and boxes, for the record."""
    found: dict[str, str] = {}
    for package in ("geosweep", "torch", "torchvision", "rasterio"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
