"""What a run leaves: counts, failures, and the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .halving import Halvings
from .rows import RowSchema, to_geodataframe

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow.dataset as pads
    import xarray as xr

    from ..catalog import Storage
    from ..catalog.sharedfiles import Member

COUNTS = (
    "windows",
    "windows_processed",
    "windows_skipped_nodata",
    "windows_skipped_aoi",
    "windows_skipped_owned",
    "windows_skipped_filter",
    "windows_failed",
    "windows_uncertain",
    "windows_empty_and_something",
    "detections_raw",
    "detections_outside_aoi",
    "duplicates_core",
    "duplicates_seam",
    "duplicates_owned",
    "duplicates_removed",
    "crops",
    "crops_partly_outside",
    "crops_outside",
    "detections",
    "decoded_bytes",
    "stored_bytes",
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A scene that failed, and why."""

    scene_id: str
    error: str


@dataclass(slots=True)
class Result:
    """Outcome of a run, over all scenes of its plan, those done by earlier runs included.

    Parameters
    ----------
    output
        Where the dataset is.
    counts
        ``scenes`` = ``succeeded`` + ``empty`` + ``failed`` (+ ``unfinished``, if interrupted);
        ``windows`` = processed + skipped + failed; the processed ones of which the tile filter was in
        doubt, as ``windows_uncertain`` and ``windows_empty_and_something``; detections and duplicates;
        ``scenes_now`` and ``windows_now`` are those of this run alone.
    failures
        Scenes that failed.
    timings
        Seconds for each stage over all scenes, and ``wall`` of this run.
    devices
        Where detectors ran.
    halvings
        Models that ran out of memory in this run and went on with smaller batches.
    """

    output: str
    counts: dict[str, int]
    failures: list[Failure]
    timings: dict[str, float]
    engine: str
    devices: list[str] = field(default_factory=list)
    halvings: dict[str, Halvings] = field(default_factory=dict)
    _storage: Storage | None = None
    _schema: RowSchema | None = None
    _planned: Callable[[Member], bool] | None = None

    @property
    def exit_code(self) -> int:
        """0, or 1 if scenes failed or have no record."""
        return 1 if self.failures or self.counts.get("unfinished") else 0

    @property
    def windows_per_second(self) -> float:
        """Windows of this run over its wall time."""
        return self.counts["windows_now"] / max(self.timings["wall"], 1e-9)

    def to_arrow(self) -> pa.Table:
        """All committed rows, as one table with the output's columns."""
        from .datafiles import open_files

        storage, rows = self._opened()
        schema = rows.arrow
        tables = [
            file.read(schema.names).cast(schema) for file in open_files(storage, self._members())
        ]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def to_geopandas(self) -> gpd.GeoDataFrame:
        """All committed rows as a frame; empty, with the same columns, if there are none."""
        _, rows = self._opened()
        return to_geodataframe(self.to_arrow(), rows.crs)

    def dataset(self) -> pads.Dataset:
        """The committed files as a pyarrow dataset, to be scanned without loading them all.

        It is a picture of this moment: files that a later run or `catalog compact` removes are missing
        from then on.

        Raises
        ------
        OutputError
            If the output is on an object store: open its files by `items.parquet` there.
        """
        from ..catalog.errors import OutputError
        from .datafiles import live_files
        from .livedataset import LiveFile, live_dataset

        storage, rows = self._opened()
        files: list[LiveFile] = []
        for key, members, dead in live_files(storage, self._members()):
            path = storage.local_path(key)
            if path is None:
                raise OutputError(
                    f"{self.output} is not on a local disk; use to_arrow(), or point your engine at the "
                    "data assets listed in items.parquet."
                )
            live = frozenset(member.scene_id for member in members) if dead else None
            files.append(LiveFile(path, live))
        return live_dataset(files, rows.arrow)

    def _members(self) -> Iterator[Member]:
        """What the records of the run's scenes say of their rows, as of now."""
        from ..catalog.sharedfiles import members

        storage, _ = self._opened()
        return filter(self._planned, members(storage))

    def _opened(self) -> tuple[Storage, RowSchema]:
        """The output and its columns; a report from a cluster may tell of one that is not seen here."""
        from ..catalog.errors import OutputError

        if self._storage is None or self._schema is None:
            raise OutputError(
                f"{self.output} can't be read from this machine; open it with read_output() on one that "
                "sees it."
            )
        return self._storage, self._schema

    def to_xarray(
        self, cell: float = 100.0, crs: str = "EPSG:6933", *, by: str | None = None
    ) -> xr.Dataset:
        """The committed detections, counted by the cells of a map grid; see `density_grid`.

        Parameters
        ----------
        cell
            Side of a cell in units of `crs`.
        crs
            Of the grid; by default the world in metres, with cells of equal area.
        by
            Text column such as ``cropmodel_label`` whose values are also counted each by itself.

        Returns
        -------
        xarray.Dataset
            (y, x): ``count``, ``score_mean``, ``area_m2_sum``, ``area_m2_mean``; with `by`,
            ``count_by`` (value, y, x).

        Raises
        ------
        OutputError
            If the output is in pixels, can't be read, or makes a grid that is too large for memory.
        JobError
            If an argument makes no sense.
        """
        from ._grid_spec import GridSpec
        from .grid_arrays import grid_dataset

        storage, rows = self._opened()
        spec = GridSpec(cell, crs, by)
        return grid_dataset(storage, self._members(), rows.crs, spec)

    def report(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return {
            "output": self.output,
            "engine": self.engine,
            "devices": self.devices,
            "halvings": {name: asdict(halvings) for name, halvings in self.halvings.items()},
            "counts": self.counts,
            "failures": [{"scene_id": f.scene_id, "error": f.error} for f in self.failures],
            "timings": {name: round(value, 3) for name, value in self.timings.items()},
            "windows_per_second": round(self.windows_per_second, 3),
        }
