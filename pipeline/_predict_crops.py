"""What `predict_tile` is told of crop models: which, from which raster, prepared how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog import SideAsset
from ..catalog.errors import JobError
from ..catalog.spec import as_pairs
from ..catalog.strict import checked
from .bands import BandRequest
from .job import CropModelSpec, crop_prefix
from .scene_crops import SceneCrops, ground_raster
from .settings import ModelFace

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..models import CropModel
    from .pixels import PixelSource

    CropTransform = Callable[[NDArray[Any]], torch.Tensor]


@dataclass(frozen=True, slots=True)
class PredictCrops:
    """The crop models of one call.

    Parameters
    ----------
    models
        Loaded, by column prefix.
    specs
        The same as a job would have them.
    rasters
        Path or URL of the raster of those that take their crops from another one.
    prepared
        The models, preparing their crops as the call says.
    """

    models: dict[str, CropModel]
    specs: tuple[CropModelSpec, ...]
    rasters: dict[str, str]
    prepared: dict[str, CropModel]

    @classmethod
    def of(
        cls,
        crop_model: Any,
        *,
        raster: str | Path | Mapping[str, str | Path] | None,
        rescale: Sequence[Any] | Mapping[str, Sequence[Any]] | None,
        transform: CropTransform | None,
        augment: bool,
        device: str | None,
    ) -> PredictCrops:
        """Load the models and sort the arguments to them; see `predict_tile`."""
        from ..models import load_crop_model

        models = {n: load_crop_model(m, device=device) for n, m in _named(crop_model).items()}
        rasters = _to_each(raster, models, "crop_raster")
        ranges = _to_each(rescale, models, "crop_rescale")
        specs = tuple(
            checked(
                CropModelSpec,
                {"name": name, "model": m.name, "rescale": as_pairs(ranges.get(name))},
                "the arguments",
            )
            for name, m in models.items()
        )
        changed = transform is not None or augment
        prepared: dict[str, Any] = {
            name: _Transformed(model, transform, augment) if changed else model
            for name, model in models.items()
        }
        return cls(models, specs, {n: str(path) for n, path in rasters.items()}, prepared)

    @property
    def faces(self) -> dict[str, ModelFace]:
        """What settings must know of them."""
        return {
            name: ModelFace(m.name, m.version, tuple(m.labels), m.bands)
            for name, m in self.models.items()
        }

    @property
    def requests(self) -> dict[str, BandRequest]:
        """Bands and rescaling of each."""
        return {s.name: BandRequest(self.models[s.name].bands, s.rescale) for s in self.specs}

    @property
    def of_main_raster(self) -> dict[str, BandRequest]:
        """What they want of the raster that is swept."""
        return {n: r for n, r in self.requests.items() if r and n not in self.rasters}

    def cutter(self, reopen: Callable[[], PixelSource]) -> SceneCrops:
        """What cuts the crops; `reopen` opens the swept raster again."""
        others = {
            name: ground_raster(
                SideAsset(href), f"crop model {name}", self.models[name], self.requests[name]
            )
            for name, href in self.rasters.items()
        }
        return SceneCrops(reopen, others, {n: model.expand for n, model in self.models.items()})


def _named(crop_model: Any) -> dict[str, Any]:
    if crop_model is None:
        return {}
    if isinstance(crop_model, Mapping):
        return dict(crop_model)
    if isinstance(crop_model, (list, tuple)):
        return {crop_prefix(i): model for i, model in enumerate(crop_model)}
    return {crop_prefix(0): crop_model}


def _to_each(value: Any, models: Mapping[str, Any], argument: str) -> dict[str, Any]:
    """A value for each crop model, from one for all or a mapping by column prefix."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        value = dict.fromkeys(models, value)
    stray = next((name for name in value if name not in models), None)
    if stray is not None or not models:
        names = ", ".join(models) or "none"
        raise JobError(
            f"{argument} is given for {stray or 'no crop model'}, but the crop models are: {names}."
        )
    return dict(value)


class _Transformed:
    """A crop model whose crops are prepared by another transform."""

    def __init__(self, model: CropModel, transform: CropTransform | None, augment: bool) -> None:
        self._model = model
        self._transform = transform or model.get_transform(augment=augment)
        self.labels = model.labels

    def classify(self, crops: list[NDArray[Any]]) -> NDArray[np.float32]:
        inputs = (self._transform(np.ascontiguousarray(crop)) for crop in crops)
        batch = [np.asarray(one, dtype=np.float32) for one in inputs]
        return self._model.classify(np.stack(batch) if batch else crops)
