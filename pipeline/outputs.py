"""Reading what earlier runs committed: the collection, and rows by the items that point to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from ..catalog import open_storage, read_collection
from ..catalog.errors import OutputError
from ..catalog.hrefs import public_href
from .datafiles import open_files
from .rows import to_geodataframe

if TYPE_CHECKING:
    from ..catalog import Storage


def read_output(output: str | Path) -> gpd.GeoDataFrame:
    """Read the detections of an output, whichever run made them.

    Files that no item points to (left by a run that was killed) don't count. All rows are held in
    memory; for very large outputs, scan the files with pyarrow or DuckDB instead.

    Parameters
    ----------
    output
        Folder or ``s3://bucket/prefix`` that `run` or ``geosweep detect`` wrote.

    Returns
    -------
    geopandas.GeoDataFrame
        The output's columns but for ``bbox``; empty, with the same columns, if nothing was found.

    Raises
    ------
    OutputError
        If `output` is no output of geosweep, or a recorded file can't be read.
    """
    storage, collection = open_output(output)
    crs = crs_of_rows(collection)
    frames = [to_geodataframe(file.read(), crs) for file in open_files(storage)]
    if frames:
        both = pd.concat(frames, ignore_index=True)
        assert isinstance(both, gpd.GeoDataFrame)
        return both
    for file in open_files(storage, empty=True):
        return to_geodataframe(file.read(), crs)
    names = [column["name"] for column in collection.get("table:columns", [])]
    none = {name: [] for name in names if name not in ("bbox", "geometry")}
    return gpd.GeoDataFrame(none, geometry=[], crs=crs)


def open_output(output: str | Path) -> tuple[Storage, dict[str, Any]]:
    """Open an output that is there already; looking at it must not create a folder.

    Raises
    ------
    OutputError
        If there is none.
    """
    name = str(output)
    remedy = "give the folder that geosweep run or detect wrote"
    if "://" not in name and not Path(name).is_dir():
        raise OutputError(f"There is no folder {name}; {remedy}.")
    storage = open_storage(output)
    collection = read_collection(storage)
    if collection is None:
        raise OutputError(
            f"{public_href(name)} has no collection.json, so it is no output of geosweep; {remedy}."
        )
    return storage, collection


def crs_of_rows(collection: dict[str, Any]) -> str | None:
    """CRS of an output's rows, by its collection; None for pixels."""
    job = collection.get("geosweep:job") or {}
    return (job.get("output") or {}).get("crs", "EPSG:4326")
