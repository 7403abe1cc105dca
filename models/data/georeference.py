"""Between the pixels of an image and the map."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...catalog.errors import AnnotationError
from .frame import BOX, annotation_frame, boxes_of, is_negative
from .headers import ImageHeader, image_header, image_location, shown

if TYPE_CHECKING:
    import geopandas as gpd
    from affine import Affine
    from numpy.typing import NDArray
    from pyproj import Transformer


def apply_affine(transform: Affine, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Put points (…, 2) through an affine transform; rotation and shear are respected.

    The origin of pixel coordinates is the outer corner of the top left pixel: no half pixel is added.
    """
    x, y = points[..., 0].astype(np.float64), points[..., 1].astype(np.float64)
    return np.stack(
        [
            transform.a * x + transform.b * y + transform.c,
            transform.d * x + transform.e * y + transform.f,
        ],
        axis=-1,
    )


def boxes_to_map(
    frame: gpd.GeoDataFrame,
    raster: str | Path | None = None,
    *,
    root_dir: str | Path | None = None,
    crs: str | None = None,
) -> gpd.GeoDataFrame:
    """Put pixel boxes on the map, each as the polygon that its corners become.

    Parameters
    ----------
    frame
        Annotations or detections: ``xmin``, ``ymin``, ``xmax``, ``ymax`` in pixels.
    raster
        The image of all rows. None takes each row's ``image_path``.
    root_dir
        Folder of relative image paths; None for ``frame.attrs["root_dir"]``.
    crs
        CRS of the result; None for the raster's own.

    Returns
    -------
    geopandas.GeoDataFrame
        The frame with ``geometry`` in map coordinates; the box columns stay in pixels. Negatives keep
        their empty polygon.

    Raises
    ------
    AnnotationError
        If an image has no georeferencing, or images have different CRSs and `crs` names none.
    RasterError
        If an image can't be opened.
    """
    import geopandas as gpd
    import shapely

    corners = boxes_of(frame)
    geometry = np.full(len(frame), shapely.Polygon(), object)
    found = None if crs is None else _crs(crs)
    for path, rows in _by_image(frame, raster, root_dir):
        header = _located(path)
        x0, y0, x1, y1 = corners[rows].T
        ring = np.stack([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]).transpose(2, 0, 1)
        points = apply_affine(header.transform, ring)  # type: ignore[arg-type]
        own = None if header.crs is None else _crs(header.crs)
        if crs is None and found is not None and own != found:
            raise AnnotationError(
                f"{shown(path)} has another CRS than the images before it; name one with crs=."
            )
        if crs is None or own is None:
            found = own
        elif own != found:
            points = _between(header.crs, crs, points)
        geometry[rows] = shapely.polygons(points)
    geometry[is_negative(frame)] = shapely.Polygon()
    mapped = gpd.GeoDataFrame(frame.drop(columns="geometry", errors="ignore"), geometry=geometry)
    mapped.attrs = dict(frame.attrs)
    return mapped.set_crs(found) if found is not None else mapped


def map_to_pixels(
    frame: gpd.GeoDataFrame,
    raster: str | Path | None = None,
    *,
    root_dir: str | Path | None = None,
) -> gpd.GeoDataFrame:
    """Pixel boxes around polygons in map coordinates: the inverse of `boxes_to_map`.

    Parameters
    ----------
    frame
        ``geometry`` in any CRS (it is transformed to the raster's), ``label``, and ``image_path``
        unless `raster` is given.
    raster
        The image of all rows.
    root_dir
        Folder of relative image paths; None for ``frame.attrs["root_dir"]``.

    Returns
    -------
    geopandas.GeoDataFrame
        An annotation frame: the bounds of each polygon's vertices in pixels. Nothing is checked or
        clipped; `read_annotations` does that.

    Raises
    ------
    AnnotationError
        If an image has no georeferencing.
    RasterError
        If an image can't be opened.
    """
    import shapely

    boxes = np.zeros((len(frame), 4))
    geometry = frame.geometry.to_numpy()
    for path, rows in _by_image(frame, raster, root_dir):
        pixels = to_pixels(geometry[rows], _wkt(frame), _located(path))
        boxes[rows] = np.nan_to_num(shapely.bounds(pixels))
    root = root_dir or frame.attrs.get("root_dir", ".")
    images = [str(raster)] * len(frame) if raster is not None else list(frame["image_path"])
    pixels = annotation_frame(images, boxes, list(frame["label"]), root_dir=root)
    for column in frame.columns.difference([*BOX, "image_path", "label", "geometry"], sort=False):
        pixels[column] = frame[column].to_numpy()
    pixels.index = frame.index
    return pixels


def to_pixels(geometry: NDArray[Any], crs: str | None, header: ImageHeader) -> NDArray[Any]:
    """Geometries in map coordinates as geometries in pixels.

    Parameters
    ----------
    geometry
        (N,) shapely geometries.
    crs
        Theirs; None where it is the image's.
    header
        Of an image with georeferencing. One that names no CRS is taken to be in `crs`.
    """
    import shapely

    assert header.transform is not None
    inverse = ~header.transform

    def convert(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if crs is not None and header.crs is not None and _crs(crs) != _crs(header.crs):
            points = _between(crs, header.crs, points)
        # The offset first: map coordinates are large, and pixels small beside them.
        shift = np.array([header.transform.c, header.transform.f])  # type: ignore[union-attr]
        rotate = type(inverse)(inverse.a, inverse.b, 0, inverse.d, inverse.e, 0)
        return apply_affine(rotate, points - shift)

    return shapely.transform(geometry, convert)


def _by_image(
    frame: gpd.GeoDataFrame, raster: str | Path | None, root_dir: str | Path | None
) -> list[tuple[str, NDArray[np.int64]]]:
    """The file of each image, with the positions of its rows."""
    if raster is not None:
        return [(str(raster), np.arange(len(frame)))] if len(frame) else []
    root = root_dir or frame.attrs.get("root_dir", ".")
    groups = frame.groupby("image_path", sort=False).indices
    return [(image_location(root, str(path)), rows) for path, rows in groups.items()]


def _located(path: str) -> ImageHeader:
    header = image_header(path)
    if header.transform is None:
        raise AnnotationError(
            f"{shown(path)} has no georeferencing, so its pixels have no place on the map."
        )
    return header


def _wkt(frame: gpd.GeoDataFrame) -> str | None:
    return None if frame.crs is None else frame.crs.to_wkt()


@lru_cache(maxsize=64)
def _crs(text: str) -> Any:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise AnnotationError(f"{text!r} is no CRS; write for example 'EPSG:32617'.") from None


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    from pyproj import Transformer

    return Transformer.from_crs(_crs(source), _crs(target), always_xy=True)


def _between(source: str | None, target: str | None, points: NDArray[np.float64]) -> NDArray[Any]:
    x, y = _transformer(str(source), str(target)).transform(points[..., 0], points[..., 1])
    return np.stack([x, y], axis=-1)
