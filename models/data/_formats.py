"""Which reader reads what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from ...catalog.errors import AnnotationError
from ._coco import is_coco, read_coco
from ._raw import RawRows, ReadOptions
from ._tables import read_csv, read_table
from ._vector import read_features, read_layer
from ._voc import read_voc
from ._yolo import NOT_LABELS, image_folder, read_yolo
from .headers import is_remote

Format = Literal["csv", "voc", "coco", "yolo", "vector"]

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".xml": "voc",
    ".txt": "yolo",
    ".geojson": "vector",
    ".gpkg": "vector",
    ".shp": "vector",
    ".fgb": "vector",
    ".parquet": "vector",
    ".geoparquet": "vector",
}


def read_rows(source: Any, format: Format | None, options: ReadOptions) -> list[RawRows]:
    """Read all rows of a file, a folder, several of them, or a frame.

    Raises
    ------
    AnnotationError
        If there is nothing to read, or it can't be read.
    """
    import pandas as pd

    if format is not None and format not in get_args(Format):
        raise AnnotationError(f"format is {format!r}; it can be {', '.join(get_args(Format))}.")
    if isinstance(source, pd.DataFrame):
        return [_read_frame(source, options)]
    sources = [source] if isinstance(source, str | Path) else list(source)
    files = [file for one in sources for file in _files(Path(one), format)]
    if not files:
        raise AnnotationError("No annotation files are given; name at least one.")
    return [part for file in files for part in _read_file(file, format, options)]


def _read_frame(frame: Any, options: ReadOptions) -> RawRows:
    import geopandas as gpd

    # DeepForest keeps the folder in an attribute of its own frames.
    root = options.root_dir or frame.attrs.get("root_dir") or getattr(frame, "root_dir", None)
    paths = [options.image_path] if options.image_path else frame.get("image_path", ())
    relative = [p for p in map(str, paths) if not is_remote(p) and not Path(p).is_absolute()]
    if root is None and relative:
        raise AnnotationError(
            f"The image path {relative[0]} is relative, and the frame doesn't say to which folder: "
            "pass root_dir=."
        )
    if isinstance(frame, gpd.GeoDataFrame) and frame.crs is not None:
        return read_features("the frame", frame, str(root or "."), options)
    return read_table("the frame", frame, str(root or "."), options)


def _files(path: Path, format: Format | None) -> list[Path]:
    """The annotation files that a path stands for."""
    if not path.exists():
        raise AnnotationError(f"{path} does not exist.")
    if not path.is_dir():
        return [path]
    folder = path / "labels" if (path / "labels").is_dir() else path
    found: dict[Format, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        # *.aux.xml are GDAL's notes about images.
        if file.name.lower() in NOT_LABELS or file.name.endswith(".aux.xml"):
            continue
        kind = "coco" if file.suffix.lower() == ".json" else SUFFIXES.get(file.suffix.lower())
        if kind is not None and format in (None, kind):
            found.setdefault(kind, []).append(file)
    if not found:
        raise AnnotationError(f"The folder {folder} has no annotation files that could be read.")
    if len(found) > 1:
        kinds = ", ".join(found)
        raise AnnotationError(
            f"The folder {folder} has files of several kinds ({kinds}): pass format=."
        )
    return next(iter(found.values()))


def _read_file(path: Path, format: Format | None, options: ReadOptions) -> list[RawRows]:
    root = options.root_dir or str(path.parent)
    suffix = path.suffix.lower()
    if format == "coco" or (format is None and suffix == ".json"):
        content = _load_json(path)
        if is_coco(content):
            return read_coco(path, content, root, options)
        if format == "coco" or not isinstance(content, dict) or "features" not in content:
            raise AnnotationError(f"{path} is neither COCO (images, annotations) nor GeoJSON.")
        format = "vector"
    kind = format or SUFFIXES.get(suffix)
    if kind is None:
        known = ", ".join([*SUFFIXES, ".json"])
        raise AnnotationError(f"{path} is of no known kind (by its suffix: {known}): pass format=.")
    if kind == "csv":
        return [read_csv(path, root, options)]
    if kind == "voc":
        return [read_voc(path, root)]
    if kind == "yolo":
        return [read_yolo(path, options.root_dir or str(image_folder(path.parent)), options)]
    return [read_features(str(path), read_layer(path), root, options)]


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{path} is not readable JSON: {error}.") from error
