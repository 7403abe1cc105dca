"""Detections to cells of a map grid: data files in, one after the other, layers of cells out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from affine import Affine
from pyproj import CRS

from ..catalog import Records
from ..catalog.errors import JobError, OutputError
from ..catalog.sharedfiles import member_of
from ._cells import HELD, CellSums, Tile
from ._centroids import centroids
from ._geo import to_map, transformer
from ._grid_spec import EQUAL_AREA, GridSpec, Layer, areal_spread, layers_of
from .datafiles import open_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..catalog import Storage
    from ..catalog.sharedfiles import Member
    from .datafiles import DataFile

log = logging.getLogger("geosweep")

_MOST_VALUES = 256
_NAMED_FILES = 3
_EQUAL = 1.02
"""Areas closer than this compare: UTM, which is not quite equal-area, passes."""


class DetectionGrid:
    """Detections by the cell that their centroid lies in, over any number of data files.

    Parameters
    ----------
    spec
        The grid.
    source_crs
        Of the data files.
    folder
        For what doesn't fit in memory; the caller's to remove.
    limit
        As in `CellSums`.
    """

    def __init__(self, spec: GridSpec, source_crs: str, folder: Path, *, limit: int = HELD) -> None:
        self.spec = spec
        self.outside = 0
        self._cells = CellSums(spec.cell, folder, limit=limit)
        self._transformer = transformer(source_crs, spec.crs)
        self._geographic = CRS.from_user_input(source_crs).is_geographic
        self._codes: dict[str | None, int] = {}

    @property
    def inside(self) -> int:
        """Number of detections in the grid."""
        return self._cells.points

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the smallest grid that holds all detections; (0, 0) without any."""
        rows, columns = self._cells.rows, self._cells.columns
        if rows is None or columns is None:
            return 0, 0
        return rows[1] - rows[0] + 1, columns[1] - columns[0] + 1

    @property
    def transform(self) -> Affine:
        """From (column, row) of the grid to the map; its corners are multiples of the cell."""
        row, column = self.origin
        cell = self.spec.cell
        return Affine(cell, 0.0, column * cell, 0.0, -cell, -row * cell)

    @property
    def origin(self) -> tuple[int, int]:
        """(row, column) of the grid's first cell, in the numbers that tiles have."""
        rows, columns = self._cells.rows, self._cells.columns
        return (0, 0) if rows is None or columns is None else (rows[0], columns[0])

    @property
    def layers(self) -> list[Layer]:
        """The fixed layers, then one for each value of the `by` column, sorted, null last."""
        return layers_of(self.spec.by, self._codes)

    def add(self, file: DataFile) -> int:
        """Add a data file's rows, batch by batch; returns how many have no place in the grid.

        Raises
        ------
        JobError
            If it lacks the `by` column, or that has too many values.
        """
        by = self.spec.by
        if by is not None:
            _check_by(by, file.parquet.schema_arrow)
        columns = ["geometry", "score", "area_m2", *([] if by is None else [by])]
        outside = 0
        for batch in file.batches(columns):
            points = centroids(batch["geometry"], geographic=self._geographic)
            x, y = self._transformer.transform(points[:, 0], points[:, 1])
            there = np.isfinite(x) & np.isfinite(y)
            outside += int((~there).sum())
            score, area = (
                batch[name].to_numpy(zero_copy_only=False)[there].astype(np.float64)
                for name in ("score", "area_m2")
            )
            codes = None if by is None else self._coded(batch[by], there)
            self._cells.add(x[there], y[there], score, area, codes)
        self.outside += outside
        return outside

    def tiles(self) -> Iterator[Tile]:
        """The tiles that have detections, in raster order."""
        return self._cells.tiles()

    def _coded(self, values: pa.Array, there: NDArray[np.bool_]) -> NDArray[np.int64]:
        encoded = values.cast(pa.string()).dictionary_encode(null_encoding="encode")
        indices = encoded.indices.to_numpy(zero_copy_only=False)[there]
        names = encoded.dictionary.to_pylist()
        codes = np.zeros(len(names), np.int64)
        for number in np.unique(indices):
            codes[number] = self._codes.setdefault(names[number], len(self._codes))
        if len(self._codes) > _MOST_VALUES:
            raise JobError(
                f"The column {self.spec.by!r} has more than {_MOST_VALUES} values, and each would be "
                "a layer; take a column with fewer, such as 'label'."
            )
        return codes[indices]


def gather(
    storage: Storage,
    scenes: Iterable[Member] | None,
    source_crs: str | None,
    spec: GridSpec,
    folder: Path,
) -> DetectionGrid:
    """Put the detections of scenes into a grid; a warning counts those that have no place in it.

    Raises
    ------
    OutputError
        If the output is in pixels, or a file can't be read.
    JobError
        If the `by` column is no good, or the cells are too small.
    """
    if source_crs is None:
        raise OutputError(
            f"The detections of {storage.uri()} are in pixels (crs: null), so they have no place on "
            "a map; run the job with output.crs to have a grid."
        )
    grid = DetectionGrid(spec, source_crs, folder)
    strayed: list[str] = []
    for file in open_files(storage, scenes):
        if grid.add(file) and len(strayed) <= _NAMED_FILES:
            strayed.append(file.key)
    if strayed:
        named = ", ".join(strayed[:_NAMED_FILES]) + (" …" if len(strayed) > _NAMED_FILES else "")
        log.warning(
            f"{grid.outside:,} of {grid.inside + grid.outside:,} detections have no place in "
            f"{spec.crs} and are not in the grid (in {named})."
        )
    spread = _spread(grid)
    if spread > _EQUAL:
        log.warning(
            f"A cell of {spec.crs} holds up to {spread:.3g} times as much ground at one end of this "
            f"grid as at another, so counts don't compare; take an equal-area CRS such as {EQUAL_AREA}."
        )
    return grid


def _spread(grid: DetectionGrid) -> float:
    rows, columns = grid.shape
    corner = np.array([0.0, 0.5, 1.0])
    column, row = (values.ravel() for values in np.meshgrid(corner * columns, corner * rows))
    return areal_spread(grid.spec.crs, *to_map(grid.transform, column, row))


class CommittedScenes:
    """What the output's commit records say of their rows.

    Parameters
    ----------
    storage
        Of the output.

    Attributes
    ----------
    interval
        Times of the first and the last scene among those that were gone through; None where no scene
        has a time.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.interval: tuple[datetime, datetime] | None = None

    def __iter__(self) -> Iterator[Member]:
        for record in Records(self._storage).all():
            member = member_of(record)
            if member is None:
                continue
            time = record.scene.datetime
            if time is not None:
                first, last = self.interval or (time, time)
                self.interval = min(first, time), max(last, time)
            yield member


def _check_by(by: str, schema: pa.Schema) -> None:
    text = [field.name for field in schema if _is_text(field.type)]
    if by not in text:
        countable = [name for name in text if name == "label" or name.endswith("_label")]
        why = "which is no text" if by in schema.names else "which the rows don't have"
        raise JobError(f"by is {by!r}, {why}; take one of {', '.join(countable)}.")


def _is_text(kind: pa.DataType) -> bool:
    # A file that other software has written anew may have any of these.
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
