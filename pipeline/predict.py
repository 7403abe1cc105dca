"""DeepForest's calls on one raster, in process: `predict_tile` and `predict_image`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..catalog import SourceSpec
from ..catalog.errors import JobError
from ..catalog.hrefs import public_href
from ..catalog.strict import checked
from ._predict_crops import PredictCrops
from .bands import BandSelection, select_bands
from .classify import CropClassifier
from .find import Finder
from .job import (
    DetectorSpec,
    Job,
    MergeSpec,
    OutputSpec,
    TileFilterSpec,
    WindowSpec,
)
from .pixels import ArraySource, PixelSource
from .raster import RasterSource
from .region import Region
from .rows import SceneRows, to_geodataframe
from .scene_reader import SceneReader
from .settings import ModelFace, Settings
from .stream import StreamCounts, warn_of_damage
from .sweep import sweep_scene
from .window_arrays import area_of_interest

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    from ..models import Detector, TileScorer
    from ._predict_crops import CropTransform

log = logging.getLogger("geosweep")
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
    crop_raster: str | Path | Mapping[str, str | Path] | None = None,
    crop_rescale: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
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
        ``cropmodel_1`` …), or a mapping from column prefix to crop model; names or objects. Each gets
        crops of its own size, context (`expand`) and `bands`.
    crop_transform
        Takes a crop (h, w, bands) and gives the classifier's input, instead of the model's own.
    augment
        Use the crop model's augmenting transform.
    crop_raster
        Another raster of the same ground to cut the crops from, such as near-infrared or canopy height:
        one, or a mapping from column prefix to raster. A detection's box goes there through map
        coordinates. Where it has no data, label and score are null.
    crop_rescale
        Which values of the crops are black and white: a pair or a list of pairs, or a mapping from
        column prefix. None for the detector's; another raster must be 8-bit or of floats then.
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
    RasterError, ModelError, JobError, DeviceMemoryError
        With one sentence on what is wrong and what to do.
    """
    here = "the arguments"
    windows = checked(
        WindowSpec, {"size": patch_size, "overlap": patch_overlap, "resolution": resolution}, here
    )
    merging = checked(MergeSpec, {"windows": merge, "iou": iou_threshold}, here)
    # First what is cheap to find wrong: the raster.
    _open(path, image, select_bands(bands, rescale), resolution).close()
    crops = PredictCrops.of(
        crop_model,
        raster=crop_raster,
        rescale=crop_rescale,
        transform=crop_transform,
        augment=augment,
        device=device,
    )
    selection = select_bands(bands, rescale, crops.of_main_raster)

    def reopen() -> PixelSource:
        return _open(path, image, selection, resolution)

    source = reopen()
    try:
        return _predict(
            source,
            path,
            windows,
            detector=detector,
            thresholds=(score_threshold, nms_iou),
            tile_filter=tile_filter,
            empty_threshold=empty_threshold,
            crops=crops,
            merge=merging,
            bbox=bbox,
            crs=crs,
            batch_size=batch_size,
            device=device,
            reopen=reopen,
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
        return ArraySource(image, selection.crops)
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
    crops: PredictCrops,
    merge: MergeSpec,
    bbox: tuple[float, float, float, float] | None,
    crs: str | None,
    batch_size: int | Literal["auto"],
    device: str | None,
    reopen: Callable[[], PixelSource],
) -> gpd.GeoDataFrame:
    from ..models import load_detector, load_tile_filter

    loaded = load_detector(
        detector, device=device, score_threshold=thresholds[0], nms_iou=thresholds[1]
    )
    tiles = load_tile_filter(tile_filter, device=device) if tile_filter is not None else None
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
        crop_models=crops.specs,
        merge=merge,
        output=checked(OutputSpec, {"path": "-", "crs": target}, "the arguments"),
    )
    settings = Settings.build(
        job,
        ModelFace(loaded.name, loaded.version, tuple(loaded.labels)),
        crops.faces,
        None if tiles is None else ModelFace(tiles.name, tiles.version, tuple(tiles.labels)),
    )
    scene_id = Path(str(path)).stem if path is not None else "image"
    region = Region(area_of_interest(bbox))
    reader = SceneReader(source, windows, region)
    finder = Finder(loaded, tiles, empty_threshold)
    classifiers = {name: CropClassifier(model, name) for name, model in crops.prepared.items()}
    cutter = crops.cutter(reopen)
    try:
        detections = sweep_scene(reader, region, settings, finder, classifiers, cutter)
    finally:
        cutter.close()
    warn_of_damage(scene_id, reader.counts)
    _warn_of_lost_crops(scene_id, reader.counts, detections.counts)
    rows = SceneRows(
        detections,
        reader.header,
        settings.schema,
        scene_id=scene_id,
        image_path=public_href(str(path)) if path is not None else "image",
        time=None,
    )
    return to_geodataframe(rows.table(), target)


def _warn_of_lost_crops(name: str, stream: StreamCounts, counts: dict[str, int]) -> None:
    """Say in the log what is in no row, since there is no record to count it in."""
    lost = counts["windows_failed"] - stream.damaged
    if lost:
        log.warning(
            "%s: %d of its windows are left out, since the pixels of their crops are corrupt",
            name,
            lost,
        )
    if counts["crops_outside"]:
        log.warning(
            "%s: %d crops have no pixel of data in the raster they are cut from, so their label is null",
            name,
            counts["crops_outside"],
        )
