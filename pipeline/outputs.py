"""Reading what earlier runs committed: the collection, and rows by the items that point to them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
import pyarrow.parquet as pq

from ..catalog import Records, open_storage, read_collection
from ..catalog.errors import OutputError
from ..catalog.hrefs import public_href

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
    frames = [
        read_rows(storage, record.data)
        for record in Records(storage).all()
        if record.data is not None
    ]
    full = [frame for frame in frames if len(frame)]
    if full:
        both = pd.concat(full, ignore_index=True)
        assert isinstance(both, gpd.GeoDataFrame)
        return both
    if frames:
        return frames[0]
    names = [column["name"] for column in collection.get("table:columns", [])]
    empty = {name: [] for name in names if name not in ("bbox", "geometry")}
    job = collection.get("geosweep:job") or {}
    crs = (job.get("output") or {}).get("crs", "EPSG:4326")
    return gpd.GeoDataFrame(empty, geometry=[], crs=crs)


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


def read_rows(
    storage: Storage, key: str, wanted: Callable[[str], bool] | None = None
) -> gpd.GeoDataFrame:
    """Read a data file: all columns but ``bbox``, or those of them that are `wanted`.

    Raises
    ------
    OutputError
        If it can't be read.
    """
    path = storage.local_path(key)
    try:
        file: Any = path if path is not None else io.BytesIO(storage.get(key))
        names = [name for name in pq.read_schema(file).names if name != "bbox"]
        return gpd.read_parquet(file, columns=[n for n in names if wanted is None or wanted(n)])
    except (OSError, ValueError) as error:
        raise OutputError(
            f"The data file {key}, which an item points to, can't be read; run the job again with "
            "--overwrite."
        ) from error
