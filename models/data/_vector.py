"""GeoJSON, GeoPackage, shapefile, GeoParquet: features on the map, to boxes in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import AnnotationError, RasterError
from ._raw import RAW_COLUMNS, RawRows, ReadOptions, raw_table
from ._shapes import bounds_of
from .georeference import to_pixels
from .headers import ImageHeader, image_header, image_location, shown

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

PIXEL = "pixel"


def read_layer(path: Path) -> gpd.GeoDataFrame:
    """Read a vector file as it is.

    Raises
    ------
    AnnotationError
        If it can't be read, or has no geometries.
    """
    import geopandas as gpd

    try:
        if path.suffix.lower() in {".parquet", ".geoparquet"}:
            return gpd.read_parquet(path)
        layer = gpd.read_file(path)
    except Exception as error:  # whatever GDAL or Arrow find wrong with the user's file
        reason = " ".join(str(error).split()).rstrip(".")
        raise AnnotationError(f"{path} can't be read as a vector file: {reason}.") from error
    if not isinstance(layer, gpd.GeoDataFrame):
        raise AnnotationError(f"{path} has no geometries.")
    return layer


def read_features(name: str, layer: gpd.GeoDataFrame, root: str, options: ReadOptions) -> RawRows:
    """Boxes of features, through the transform and CRS of the image that each belongs to."""
    for column, given in (("image_path", options.image_path), ("label", options.label)):
        if given is None and column not in layer:
            fields = ", ".join(str(name) for name in layer.columns if name != layer.geometry.name)
            raise AnnotationError(
                f"{name} has no field {column!r} (it has {fields or 'none'}): add it, or pass {column}=."
            )
    count = len(layer)
    images = [options.image_path] * count if options.image_path else _texts(layer["image_path"])
    labels = [options.label] * count if options.label else _texts(layer["label"])
    corners, at_point = np.full((count, 4), np.nan), np.zeros(count, bool)
    why: list[str | None] = [None] * count
    crs = options.crs or (None if layer.crs is None else layer.crs.to_wkt())
    geometry = layer.geometry.to_numpy()
    for image in dict.fromkeys(images):
        rows = np.array([i for i, other in enumerate(images) if other == image])
        found = _locate(name, image_location(root, image or ""), crs)
        if isinstance(found, str):
            why = [found if i in set(rows.tolist()) else known for i, known in enumerate(why)]
            continue
        boxes = bounds_of(*_in_pixels(geometry[rows], crs, found, options))
        corners[rows], at_point[rows] = boxes.corners, boxes.at_point
        for i, problem in zip(rows, boxes.why, strict=True):
            why[i] = problem
    raw = raw_table(np.arange(count) + 1, images, corners, labels, why=why, at_point=at_point)
    for column in layer.columns.difference([*RAW_COLUMNS, layer.geometry.name, "bbox"], sort=False):
        raw[column] = layer[column].to_numpy()
    return RawRows(name, root, "feature", raw)


def _locate(name: str, path: str, crs: str | None) -> ImageHeader | str:
    """The header that places features, or why they have no place in the image."""
    if crs == PIXEL:
        return ImageHeader(0, 0, None, None)
    try:
        header = image_header(path)
    except RasterError as error:
        return str(error).rstrip(".")
    if header.transform is not None and crs is None:
        raise AnnotationError(
            f"{name} states no CRS, and {shown(path)} is georeferenced: say what its coordinates are with "
            f"crs='EPSG:…', or crs='{PIXEL}'."
        )
    if header.transform is None and crs is not None:
        return (
            f"its image {shown(path)} has no georeferencing (if the coordinates are pixels, pass "
            f"crs='{PIXEL}')"
        )
    return header


def _in_pixels(
    geometry: NDArray[Any], crs: str | None, header: ImageHeader, options: ReadOptions
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Geometries in pixels, and the buffer of points as half a width and half a height."""
    radius = options.point_buffer
    if header.transform is None:
        return geometry, None if radius is None else (radius, radius)
    # A circle on the map is an ellipse in pixels; these are the half sides of its bounds.
    inverse = ~header.transform
    sides = np.hypot([inverse.a, inverse.d], [inverse.b, inverse.e])
    pixels = to_pixels(geometry, crs, header)
    return pixels, None if radius is None else (radius * sides[0], radius * sides[1])


def _texts(column: Any) -> list[str | None]:
    import pandas as pd

    return [None if pd.isna(value) else str(value).strip() or None for value in column]
