"""A job's models, loaded into this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..catalog.errors import ModelError
from .find import Finder

if TYPE_CHECKING:
    from ..models import BareCropModel, Detector
    from .settings import Settings


def load_models(settings: Settings) -> tuple[Finder, dict[str, BareCropModel]]:
    """Load all of the job's models into this process."""
    from ..models import available_cores

    # Named, so that rows are those of any other number of threads, and of the Ray engine.
    cores = available_cores()
    crop_models = {
        spec.name: load_crop_model_for(settings, spec.name, threads=cores)
        for spec in settings.job.crop_models
    }
    return load_finder_for(settings, threads=cores), crop_models


def load_finder_for(settings: Settings, *, threads: int | None = None) -> Finder:
    """Load the job's detector, and its tile filter onto the same device."""
    detector = load_detector_for(settings, threads=threads)
    spec = settings.job.tile_filter
    if spec is None:
        return Finder(detector)
    # Not before it is known to be wanted: it brings torch, which a user's detector may not need.
    from ..models import load_tile_filter

    tile_filter = load_tile_filter(spec.model, device=detector.device, threads=threads)
    return Finder(detector, tile_filter, spec.empty_threshold)


def load_detector_for(settings: Settings, *, threads: int | None = None) -> Detector:
    """Load the job's detector with the job's thresholds."""
    from ..models import load_detector

    spec = settings.job.detector
    return load_detector(
        spec.model,
        device=spec.device,
        score_threshold=spec.score_threshold,
        nms_iou=spec.nms_iou,
        precision=spec.precision,
        backend=spec.backend,
        threads=threads,
    )


def load_crop_model_for(
    settings: Settings, name: str, *, computes: bool = True, threads: int | None = None
) -> BareCropModel:
    """Load the crop model with this column prefix; on the CPU if it only prepares crops."""
    from ..models import load_bare_crop_model

    spec = next(spec for spec in settings.job.crop_models if spec.name == name)
    if computes:
        model = load_bare_crop_model(
            spec.model,
            device=settings.job.detector.device,
            threads=threads,
            backend=spec.backend,
            precision=spec.precision,
        )
    else:
        model = load_bare_crop_model(spec.model, device="cpu", threads=threads)
    if spec.bands is not None and len(spec.bands) != model.crop_bands:
        raise ModelError(
            f"crop model {name} takes {model.crop_bands} bands, and crop_models.bands names "
            f"{len(spec.bands)}: make them as many."
        )
    return model
