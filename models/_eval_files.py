"""Where predictions and labels come from, and which predicted image is which labelled one."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..catalog.errors import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def read_predictions(predictions: pd.DataFrame | str | Path) -> pd.DataFrame:
    """A frame of predictions, from a file if it is none yet.

    Raises
    ------
    AnnotationError
        If the file can't be read, or is a folder.
    """
    import geopandas as gpd
    import pandas as pd

    if isinstance(predictions, pd.DataFrame):
        return predictions
    path = Path(predictions)
    if path.is_dir():
        raise AnnotationError(
            f"{path} is a folder: read an output with geosweep.pipeline.read_output({str(path)!r}) "
            "and give its frame, or use geosweep evaluate."
        )
    try:
        if path.suffix.lower() == ".csv":
            return pd.read_csv(path, skipinitialspace=True)
        if path.suffix.lower() in (".parquet", ".geoparquet"):
            return gpd.read_parquet(path)
        return gpd.read_file(path)
    except FileNotFoundError:
        raise AnnotationError(f"There is no file {path} with predictions.") from None
    except Exception as error:
        # pandas, pyarrow and GDAL each have errors of their own for a file that is not theirs.
        raise AnnotationError(
            f"{path} can't be read as predictions (a CSV, GeoParquet, or a file of GDAL's): "
            f"{str(error).splitlines()[0]}."
        ) from error


def read_truth(
    truth: pd.DataFrame | str | Path, *, on_map: bool, root_dir: str | Path | None
) -> pd.DataFrame:
    import pandas as pd

    if isinstance(truth, pd.DataFrame):
        return truth
    if on_map and Path(truth).is_file():
        import geopandas as gpd
        from pyogrio.errors import DataSourceError

        # Labels with a CRS are compared where they are, so that no raster need be at hand.
        try:
            parquet = Path(truth).suffix.lower() in (".parquet", ".geoparquet")
            frame = gpd.read_parquet(truth) if parquet else gpd.read_file(truth)
            if map_crs(frame) is not None:
                return frame
        except (DataSourceError, ValueError, OSError):
            pass  # no geographic file: read_annotations knows, or says what is wrong with it
    from .data import read_annotations

    # Boxes in pixels are compared without their images; YOLO's fractions need the images' sizes.
    yolo = Path(truth).suffix.lower() in ("", ".txt")
    return read_annotations(truth, root_dir=root_dir, check_images=yolo)


def map_crs(frame: pd.DataFrame) -> Any:
    """The CRS of a frame's geometry; None without one, and in pixels."""
    import geopandas as gpd

    return frame.crs if isinstance(frame, gpd.GeoDataFrame) and _has_geometry(frame) else None


def _has_geometry(frame: pd.DataFrame) -> bool:
    name = getattr(frame, "_geometry_column_name", None)
    return name is not None and name in frame.columns


def match_names(names: Sequence[str], images: Sequence[str]) -> dict[str, str | None]:
    """For each predicted image, the labelled one that it is; None where there is none.

    One side may say more of the path than the other: the longest common end decides.

    Raises
    ------
    AnnotationError
        If two are equally good.
    """
    by_file: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_file[_parts(image)[-1]].append(image)
    candidates: dict[str, list[str]] = defaultdict(list)
    for name in names:
        same_file = by_file.get(_parts(name)[-1], [])
        best = _closest(
            name, same_file, "The predicted image {!r} could be the labelled {!r} or {!r}"
        )
        if best is not None:
            candidates[best].append(name)
    result: dict[str, str | None] = dict.fromkeys(names)
    for image, claims in candidates.items():
        best = _closest(
            image, claims, "The labelled image {!r} could be the predicted {!r} or {!r}"
        )
        if best is not None:
            result[best] = image
    return result


def _closest(name: str, others: Sequence[str], complaint: str) -> str | None:
    """The one of `others` that has the longest end in common with `name`."""
    ends = [_common_end(name, other) for other in others]
    best = [other for other, end in zip(others, ends, strict=True) if end == max(ends)]
    if len(best) > 1:
        question = complaint.format(name, *best[:2])
        raise AnnotationError(f"{question}: give more of its path in the column image_path.")
    return best[0] if best else None


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts or ("",)


def _common_end(a: str, b: str) -> int:
    length = 0
    for x, y in zip(reversed(_parts(a)), reversed(_parts(b)), strict=False):
        if x != y:
            break
        length += 1
    return length
