"""DeepForest's calls on one raster, in process: `predict_tile` and `predict_image`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..catalog import SourceSpec
from ..catalog.errors import JobError
from ..catalog.hrefs import public_href
from ..catalog.strict import checked
from .crop import RectangleReader
from .find import Finder
from .job import (
    CropModelSpec,
    DetectorSpec,
    Job,
    MergeSpec,
    OutputSpec,
    TileFilterSpec,
    WindowSpec,
    crop_prefix,
)
from .pixels import ArraySource, BandSelection, PixelSource, select_bands
from .raster import RasterSource
from .region import Region
from .rows import build_table, to_geodataframe
from .scene_reader import SceneReader
from .settings import ModelFace, Settings
from .stream import warn_of_damage
from .sweep import sweep_scene
from .window_arrays import area_of_interest

if TYPE_CHECKING:
    import geopandas as gpd
    import torch
    from numpy.typing import NDArray

    from ..models import CropModel, Detector, TileScorer

    CropTransform = Callable[[NDArray[np.uint8]], torch.Tensor]

WINDOW_LIMIT = 8192
"""Largest side that is looked at in one piece."""


def predict_tile(
    path: str | Path | None = None,
    image: NDArray[Any] | None = None,
    *,
    detector: str | Detector = "geosweep/tree",
    patch_size: int = 400,
    patch_overlap: float = 0.05,
    iou_threshold: float = 0.15,
    score_threshold: float | None = None,
    nms_iou: float | None = None,
    tile_filter: str | TileScorer | None = None,
    empty_threshold: float | None = None,
    crop_model: Any = None,
    crop_transform: CropTransform | None = None,
    augment: bool = False,
    merge: Literal["core", "nms"] = "core",
    resolution: float | None = None,
    bands: Sequence[int | str] | None = None,
    rescale: Sequence[Any] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    crs: str | None = "source",
    batch_size: int | Literal["auto"] = "auto",
    device: str | None = None,
) -> gpd.GeoDataFrame:
    """Detect in one raster of any size, window by window.

    Parameters
    ----------
    path
        Raster file or URL.
    image
        Instead of a path: (H, W, 3) RGB, uint8 or float in 0–1.
    detector
        Name, file or object; see `geosweep.models.load_detector`.
    patch_size, patch_overlap
        Window side in pixels, and the share of it that neighbours have in common.
    iou_threshold
        IoU above which detections of two windows are one object.
    score_threshold, nms_iou
        None takes what is recorded with the weights.
    tile_filter, empty_threshold
        Classifier that keeps empty windows from the detector, and its score of ``empty`` from which on
        it does; None takes the one recorded with it.
    crop_model
        One crop model (columns ``cropmodel_label``, ``cropmodel_score``), several (``cropmodel``,
        ``cropmodel_1`` …), or a mapping from column prefix to crop model; names or objects.
    crop_transform
        Takes a crop (h, w, 3) uint8 and gives the classifier's input, instead of the model's own.
    augment
        Use the crop model's augmenting transform.
    merge
        ``core``, or ``nms`` for DeepForest's mosaic.
    resolution
        GSD in metres at which the detector is to see the raster; None for the raster's own.
    bands, rescale
        Which three bands, and which values are black and white; needed where the raster is not 8-bit
        colour.
    bbox
        Only detections whose centre is in west, south, east, north (degrees).
    crs
        CRS of `geometry`; ``"source"`` for the raster's own, None for pixels.

    Returns
    -------
    GeoDataFrame
        The columns of the output without `bbox`; box columns in pixels of the raster. A raster without
        georeferencing gives pixel geometry and no CRS. No detections: no rows, the same columns.

    Raises
    ------
    RasterError, ModelError, JobError
        With one sentence on what is wrong and what to do.
    """
    here = "the arguments"
    windows = checked(
        WindowSpec, {"size": patch_size, "overlap": patch_overlap, "resolution": resolution}, here
    )
    merging = checked(MergeSpec, {"windows": merge, "iou": iou_threshold}, here)
    source = _open(path, image, select_bands(bands, rescale), resolution)
    try:
        return _predict(
            source,
            path,
            windows,
            detector=detector,
            thresholds=(score_threshold, nms_iou),
            tile_filter=tile_filter,
            empty_threshold=empty_threshold,
            crop_model=crop_model,
            crop_transform=crop_transform,
            augment=augment,
            merge=merging,
            bbox=bbox,
            crs=crs,
            batch_size=batch_size,
            device=device,
            reopen=lambda: _open(path, image, select_bands(bands, rescale), resolution),
        )
    finally:
        source.close()


def predict_image(
    image: NDArray[Any] | None = None,
    path: str | Path | None = None,
    **options: Any,
) -> gpd.GeoDataFrame:
    """Detect in a whole image at once, without windows.

    Takes the arguments of `predict_tile` but for the windows' own.

    Raises
    ------
    RasterError, ModelError, JobError
        With one sentence on what is wrong and what to do.
    """
    for name in ("patch_size", "patch_overlap", "merge", "iou_threshold", "resolution"):
        if name in options:
            raise JobError(f"predict_image takes no {name}; use predict_tile for windows.")
    source = _open(path, image, select_bands(options.get("bands"), options.get("rescale")), None)
    side = max(source.width, source.height)
    source.close()
    if side > WINDOW_LIMIT:
        raise JobError(
            f"The image is {side} pixels wide or high, too much to look at in one piece; use predict_tile."
        )
    return predict_tile(path, image, patch_size=max(side, 32), patch_overlap=0.0, **options)


def _open(
    path: str | Path | None,
    image: NDArray[Any] | None,
    selection: BandSelection,
    resolution: float | None,
) -> PixelSource:
    if (path is None) == (image is None):
        raise JobError("Give either path or image.")
    if image is not None:
        return ArraySource(image)
    return RasterSource(str(path), selection, resolution=resolution)


def _predict(
    source: PixelSource,
    path: str | Path | None,
    windows: WindowSpec,
    *,
    detector: str | Detector,
    thresholds: tuple[float | None, float | None],
    tile_filter: str | TileScorer | None,
    empty_threshold: float | None,
    crop_model: Any,
    crop_transform: CropTransform | None,
    augment: bool,
    merge: MergeSpec,
    bbox: tuple[float, float, float, float] | None,
    crs: str | None,
    batch_size: int | Literal["auto"],
    device: str | None,
    reopen: Callable[[], PixelSource],
) -> gpd.GeoDataFrame:
    from ..models import load_crop_model, load_detector, load_tile_filter

    loaded = load_detector(
        detector, device=device, score_threshold=thresholds[0], nms_iou=thresholds[1]
    )
    tiles = load_tile_filter(tile_filter, device=device) if tile_filter is not None else None
    crops = {
        name: load_crop_model(model, device=device) for name, model in _named(crop_model).items()
    }
    tile_spec: TileFilterSpec | None = None
    if tiles is not None:
        fields = {"model": tiles.name, "empty_threshold": empty_threshold}
        tile_spec = checked(TileFilterSpec, fields, "the arguments")
    if source.transform is None or source.crs is None:
        target = None
    else:
        target = source.crs if crs == "source" else crs
    job = Job(
        source=SourceSpec(rasters=(str(path) if path is not None else "image",)),
        windows=windows,
        tile_filter=tile_spec,
        detector=DetectorSpec(model=loaded.name, batch_size=batch_size),
        crop_models=tuple(CropModelSpec(name=name, model=m.name) for name, m in crops.items()),
        merge=merge,
        output=checked(OutputSpec, {"path": "-", "crs": target}, "the arguments"),
    )
    settings = Settings.build(
        job,
        ModelFace(loaded.name, loaded.version, tuple(loaded.labels)),
        {name: ModelFace(m.name, m.version, tuple(m.labels)) for name, m in crops.items()},
        None if tiles is None else ModelFace(tiles.name, tiles.version, tuple(tiles.labels)),
    )
    scene_id = Path(str(path)).stem if path is not None else "image"
    region = Region(area_of_interest(bbox))
    reader = SceneReader(source, windows, region)
    finder = Finder(loaded, tiles, empty_threshold)
    rectangle = RectangleReader(reopen)
    prepared = {
        name: _Transformed(model, crop_transform, augment) if crop_transform or augment else model
        for name, model in crops.items()
    }
    try:
        detections = sweep_scene(reader, region, settings, finder, prepared, rectangle)  # type: ignore[arg-type]
    finally:
        rectangle.close()
    warn_of_damage(scene_id, reader.counts)
    table = build_table(
        detections,
        reader.header,
        settings.schema,
        scene_id=scene_id,
        image_path=public_href(str(path)) if path is not None else "image",
        time=None,
    )
    return to_geodataframe(table, target)


def _named(crop_model: Any) -> dict[str, Any]:
    if crop_model is None:
        return {}
    if isinstance(crop_model, Mapping):
        return dict(crop_model)
    if isinstance(crop_model, (list, tuple)):
        return {crop_prefix(i): model for i, model in enumerate(crop_model)}
    return {crop_prefix(0): crop_model}


class _Transformed:
    """A crop model whose crops are prepared by another transform."""

    def __init__(self, model: CropModel, transform: CropTransform | None, augment: bool) -> None:
        self._model = model
        self._transform = transform or model.get_transform(augment=augment)
        self.labels, self.expand = model.labels, model.expand
        self.classify = model.classify

    def prepare(self, crops: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        if not crops:
            return self._model.prepare(crops)
        return np.stack([np.asarray(self._transform(crop), dtype=np.float32) for crop in crops])
