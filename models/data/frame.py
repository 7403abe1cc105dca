"""The annotation frame: one row for each labelled box, and one for each image without any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

BOX = ("xmin", "ymin", "xmax", "ymax")
COLUMNS = ("image_path", *BOX, "label", "geometry")


def annotation_frame(
    image_path: Sequence[str],
    boxes: ArrayLike,
    label: Sequence[str | None],
    *,
    root_dir: str | Path = ".",
) -> gpd.GeoDataFrame:
    """Make an annotation frame.

    Parameters
    ----------
    image_path
        The N images: absolute, URLs, or relative to `root_dir`.
    boxes
        (N, 4): xmin, ymin, xmax, ymax in pixels of the image, origin top left. All zeros: an image
        without objects, a negative.
    label
        The N labels; those of negatives become None.
    root_dir
        Folder of relative image paths, kept in ``frame.attrs["root_dir"]``.

    Returns
    -------
    geopandas.GeoDataFrame
        Columns ``image_path``, ``xmin``, ``ymin``, ``xmax``, ``ymax`` (float64), ``label`` and
        ``geometry`` (pixel polygons without CRS, an empty polygon for a negative).
    """
    import geopandas as gpd
    import pandas as pd
    import shapely

    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    negative = (corners == 0).all(axis=1)
    x0, y0, x1, y1 = corners.T
    geometry = np.asarray(shapely.box(x0, y0, x1, y1), object)
    geometry[negative] = shapely.Polygon()
    # Objects, so that no label is None rather than pandas' NaN.
    given: Any = pd.Series(list(label), dtype=object)
    names = np.array([str(name) for name in given], object)
    names[given.isna()] = None
    names[negative] = None
    columns = {
        "image_path": np.array(list(image_path), object),
        **dict(zip(BOX, corners.T, strict=True)),
        "label": pd.Series(names, dtype=object),
    }
    frame = gpd.GeoDataFrame(columns, geometry=geometry)
    frame.attrs["root_dir"] = str(root_dir)
    return frame


def boxes_of(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The (N, 4) boxes of an annotation frame."""
    return frame[list(BOX)].to_numpy(np.float64, copy=True)


def is_negative(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """(N,) mask of the rows that say an image is empty: those whose box is all zeros."""
    return (boxes_of(frame) == 0).all(axis=1)
