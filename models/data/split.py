"""Rasters cut into tiles on disk, with the boxes of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...catalog.errors import AnnotationError
from ._formats import SUFFIXES
from ._tiles import NO_BOXES, Boxes, TilePlan, cut_tiles
from ._vector import read_layer
from .annotations import read_annotations
from .frame import boxes_of, is_negative
from .headers import image_location, is_remote, shown

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd


def split_raster(
    raster: str | Path | Sequence[str | Path] | None = None,
    annotations: str | Path | pd.DataFrame | None = None,
    patch_size: int = 400,
    patch_overlap: float = 0.05,
    *,
    save_dir: str | Path,
    root_dir: str | Path | None = None,
    allow_empty: bool = False,
    min_visible: float = 0.5,
    bands: Sequence[int | str] | None = None,
) -> gpd.GeoDataFrame:
    """Cut rasters into tiles with their boxes, for training on tiles; DeepForest's ``split_raster``.

    Training straight from the rasters (`DetectionDataModule`) needs no tiles. Rasters are read from
    top to bottom, a few rows of blocks at a time, whatever their layout, size, bands and data type.

    Parameters
    ----------
    raster
        The raster or rasters: files or URLs. None cuts all images that `annotations` name.
    annotations
        A frame, or what `read_annotations` takes. A vector file that names no image is taken to
        belong to `raster`. None writes all tiles, as negatives.
    patch_size
        Side of a tile in pixels. The last tile of each row and column is shifted inwards; a raster
        smaller than a tile gives one of its own size.
    patch_overlap
        Share of `patch_size` that neighbouring tiles have in common.
    save_dir
        Folder to write to.
    root_dir
        Folder of the annotations' relative image paths; None for the one they name.
    allow_empty
        Whether tiles without boxes are written, too, as negatives. Tiles without data never are.
    min_visible
        Share of a box's area that a tile must hold for the box to be kept there, clipped.
    bands
        1-based numbers or names of the bands to write; None for all but an alpha band.

    Returns
    -------
    geopandas.GeoDataFrame
        The tiles' annotation frame: ``image_path`` is the tile's name in `save_dir`, and the further
        columns ``source``, ``xoff`` and ``yoff`` say where it was cut.

    Notes
    -----
    A tile of ``NAME.tif`` is ``NAME_XOFF_YOFF.png``, or ``.tif`` where it is not 8-bit RGB; both
    carry the raster's georeferencing (a PNG's is in its ``.aux.xml``). ``NAME.csv`` holds the
    annotations of its tiles. Where another raster of that name has been cut to the same folder, a
    hash of the raster's path is added to the name.

    Raises
    ------
    AnnotationError
        If annotations can't be used, name none of the rasters, or leave no tile to write.
    RasterError
        If a raster can't be read.
    OutputError
        If a tile can't be written.
    """
    import geopandas as gpd
    import pandas as pd

    _check_arguments(patch_size, patch_overlap, min_visible)
    sources = None if raster is None else _paths(raster)
    frame = _load(annotations, sources, root_dir)
    if sources is None and frame is None:
        raise AnnotationError("split_raster needs a raster, or annotations that name some.")
    boxes = _boxes_by_image(frame)
    folder = Path(save_dir)
    empty = allow_empty or frame is None
    plan = TilePlan(folder, patch_size, patch_overlap, empty, min_visible, bands)
    parts = []
    for path in sources or list(boxes):
        if frame is not None and path not in boxes and not allow_empty:
            raise AnnotationError(
                f"The annotations have no row for {shown(path)} (they name {_some(list(boxes))}): give "
                "the folder of their images as root_dir, or cut it with allow_empty=True."
            )
        parts.append(cut_tiles(path, boxes.get(path, NO_BOXES), plan))
    whole = [part for part in parts if len(part)]
    if not whole:
        raise AnnotationError(
            f"No tile of {_some(sources or list(boxes))} has a box in it; allow_empty=True writes "
            "those without."
        )
    tiles = gpd.GeoDataFrame(pd.concat(whole, ignore_index=True))
    tiles.attrs["root_dir"] = str(folder)
    return tiles


def _check_arguments(patch_size: int, patch_overlap: float, min_visible: float) -> None:
    if patch_size < 1:
        raise AnnotationError(f"patch_size is {patch_size}; it must be at least 1 pixel.")
    if not 0 <= patch_overlap < 1:
        raise AnnotationError(
            f"patch_overlap is {patch_overlap}; it is a share of the tile: 0 or more, less than 1."
        )
    if not 0 <= min_visible <= 1:
        raise AnnotationError(f"min_visible is {min_visible}; it is a share from 0 to 1.")


def _paths(raster: str | Path | Sequence[str | Path]) -> list[str]:
    given = [raster] if isinstance(raster, str | Path) else raster
    return list(dict.fromkeys(_resolved(str(path)) for path in given))


def _resolved(path: str) -> str:
    return path if is_remote(path) else str(Path(path).resolve())


def _load(
    annotations: Any, sources: list[str] | None, root_dir: str | Path | None
) -> gpd.GeoDataFrame | None:
    if annotations is None:
        return None
    if isinstance(annotations, str | Path) and sources is not None and len(sources) == 1:
        annotations = _with_image(Path(annotations), sources[0])
    return read_annotations(annotations, root_dir=root_dir)


def _with_image(path: Path, raster: str) -> Any:
    """A vector file that names no image, with the image; anything else as it is."""
    if path.is_dir() or not path.exists() or SUFFIXES.get(path.suffix.lower()) != "vector":
        return path
    layer = read_layer(path)
    return path if "image_path" in layer else layer.assign(image_path=raster)


def _boxes_by_image(frame: gpd.GeoDataFrame | None) -> dict[str, Boxes]:
    """The boxes of each image by its file; images that are negatives have none."""
    if frame is None:
        return {}
    root = frame.attrs.get("root_dir", ".")
    found: dict[str, Boxes] = {}
    corners, names = boxes_of(frame), frame["label"].to_numpy(object)
    boxed = ~is_negative(frame)
    for path, rows in frame.groupby("image_path", sort=False).indices.items():
        mine = rows[boxed[rows]]
        file = _resolved(image_location(root, str(path)))
        found[file] = Boxes(corners[mine], names[mine])
    return found


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(shown(path) for path in paths[:3]) + more
