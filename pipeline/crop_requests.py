"""What a job's crop models want of the raster that is swept, before any of them is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bands import BandRequest

if TYPE_CHECKING:
    from .job import CropModelSpec, Job


def crop_requests(job: Job) -> dict[str, BandRequest]:
    """Return the bands and rescaling that are asked for besides the detector's, by column prefix.

    They are the job's own words. Where bands may be assets of their own, what a model asks for by
    itself is looked up in its header, too: it decides which assets a scene is made of.

    Raises
    ------
    ModelError
        If a model has to be asked and can't be found.
    """
    asked = {
        spec.name: BandRequest(_bands(spec, job), spec.rescale)
        for spec in job.crop_models
        if spec.asset is None
    }
    return {name: request for name, request in asked.items() if request}


def side_bands(job: Job) -> tuple[str, ...]:
    """Return the names among those bands, each once."""
    bands = (band for request in crop_requests(job).values() for band in request.bands or ())
    return tuple(dict.fromkeys(band for band in bands if isinstance(band, str)))


def _bands(spec: CropModelSpec, job: Job) -> tuple[int | str, ...] | None:
    source = job.source
    named = any(isinstance(band, str) for band in source.bands or ())
    if spec.bands is not None or not named or source.stac is None or source.asset is not None:
        return spec.bands
    from .settings import ModelFace

    return ModelFace.look_up(spec.model, "cropmodel").bands
