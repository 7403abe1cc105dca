"""`predict_file`: detections on the very images that an annotation file names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from ..catalog.errors import AnnotationError
from .predict import predict_image, predict_tile

if TYPE_CHECKING:
    from ..models import Detector


def predict_file(
    annotations: str | Path | pd.DataFrame,
    root_dir: str | Path | None = None,
    *,
    detector: str | Detector = "geosweep/tree",
    patch_size: int | None = None,
    device: str | None = None,
    **options: Any,
) -> gpd.GeoDataFrame:
    """Detect on the images that annotations name; DeepForest's ``predict_file``.

    What comes out can be compared with what went in: ``evaluate(predict_file(file), file)``.

    Parameters
    ----------
    annotations
        A frame with the column ``image_path``, or whatever `geosweep.models.read_annotations` takes.
        Its boxes play no part.
    root_dir
        Folder of the images; None for that of the annotation file.
    detector, device
        As for `predict_tile`.
    patch_size
        Window side in pixels. None looks at each image in one piece.
    **options
        Further arguments of `predict_image`; with `patch_size` those of `predict_tile`.

    Returns
    -------
    GeoDataFrame
        The columns of `predict_tile`. ``image_path`` is as the annotations have it; ``geometry`` is in
        pixels, without CRS.

    Raises
    ------
    AnnotationError
        If no image is named.
    RasterError, ModelError, JobError
        As `predict_tile`.
    """
    from ..models import load_detector, read_annotations

    if isinstance(annotations, pd.DataFrame):
        frame = annotations
    else:
        frame = read_annotations(annotations, root_dir=root_dir)
    names = list(dict.fromkeys(frame["image_path"].astype(str)))
    if not names:
        raise AnnotationError("The annotations name no image to look at.")
    folder = Path(root_dir or frame.attrs.get("root_dir", "."))
    loaded = load_detector(detector, device=device)
    parts = []
    for name in names:
        path = name if "://" in name else folder / name
        given: dict[str, Any] = {**options, "detector": loaded, "device": device, "crs": None}
        if patch_size is None:
            part = predict_image(path=path, **given)
        else:
            part = predict_tile(path, patch_size=patch_size, **given)
        parts.append(part.assign(image_path=name))
    full = [part for part in parts if len(part)] or parts[:1]
    found = pd.concat(full, ignore_index=True)
    assert isinstance(found, gpd.GeoDataFrame)
    found.attrs["root_dir"] = str(folder)
    return found
