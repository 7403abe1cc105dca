"""The crops of one scene, for every crop model: from its windows, or from other rasters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..models.crops import detection_bounds
from .bands import BandRequest, BandSelection
from .crop import Cut, RectangleReader, cut_crops
from .ground import GroundRaster
from .raster import RasterSource
from .scene_reader import open_scene

if TYPE_CHECKING:
    from ..catalog import SideAsset
    from ..models import BareCropModel
    from .detect import Found
    from .pixels import PixelSource
    from .scene_reader import SceneHeader, SceneTask
    from .settings import Settings
    from .stream import WindowBatch


class SceneCrops:
    """Cuts crops; rasters are opened when they are first needed and released by `close`.

    Parameters
    ----------
    open_main
        Opens the raster that is swept, for crops whose context leaves their window.
    others
        The raster of each crop model that takes its crops from another one.
    expand
        Context of each crop model, in pixels of the swept level.
    """

    def __init__(
        self,
        open_main: Callable[[], PixelSource],
        others: Mapping[str, GroundRaster],
        expand: Mapping[str, int],
    ) -> None:
        self._main = RectangleReader(open_main)
        self._others = others
        self._expand = expand

    @classmethod
    def of(
        cls, task: SceneTask, settings: Settings, models: Mapping[str, BareCropModel]
    ) -> SceneCrops:
        """The crops of a task, for the job's loaded crop models."""
        others: dict[str, GroundRaster] = {}
        expand: dict[str, int] = {}
        for spec in settings.job.crop_models:
            model = models[spec.name]
            expand[spec.name] = model.expand if spec.expand is None else spec.expand
            if spec.asset is not None:
                others[spec.name] = ground_raster(
                    task.scene.assets[spec.asset],
                    f"crop model {spec.name}, asset '{spec.asset}'",
                    model,
                    settings.crop_bands[spec.name],
                    sign=settings.job.source.sign,
                )
        return cls(lambda: open_scene(task.scene, settings, threads=1), others, expand)

    def cut(self, name: str, found: Found, batch: WindowBatch, header: SceneHeader) -> Cut:
        """Cut the crops of detections in a batch's windows for crop model `name`.

        Raises
        ------
        RasterError
            If a raster can't be opened or read.
        """
        grid, expand = header.grid, self._expand[name]
        other = self._others.get(name)
        if other is not None:
            bounds = detection_bounds(found.boxes, expand, grid.width, grid.height)
            return other.cut(bounds, found.window, header)
        channels = header.crop_channels.get(name, (0, 1, 2))
        return cut_crops(found, batch, grid, expand, self._main, channels)

    def close(self) -> None:
        """Release all rasters."""
        for reader in (self._main, *self._others.values()):
            reader.close()


def ground_raster(
    asset: SideAsset,
    who: str,
    model: BareCropModel,
    request: BandRequest,
    *,
    sign: str | None = None,
) -> GroundRaster:
    """The raster that a crop model takes its crops from, with the bands it wants."""
    selection = BandSelection(request.bands, request.rescale, use="crops")
    opened = partial(RasterSource, asset.href, selection, threads=1, access=asset.access, sign=sign)
    return GroundRaster(opened, who, model.crop_bands)
