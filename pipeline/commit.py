"""Commit a scene: its rows first, then its STAC item, which is the record that it is done."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.hrefs import public_href, scrub
from ..catalog.records import Records, SceneRecord, own_file
from ..catalog.stacitems import multihash
from ..catalog.versions import is_kept, keep_version
from .geofile import write_geoparquet
from .partition import partition_folder
from .rows import SceneRows
from .settings import software_versions

if TYPE_CHECKING:
    from ..catalog import Storage
    from ..catalog.ledger import Standing
    from .collect import SceneDetections
    from .scene_reader import SceneHeader, SceneTask
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class SceneOutcome:
    """How a scene ended; small enough to travel by the million.

    Parameters
    ----------
    scene_id
        Which one.
    status
        ``succeeded``, ``empty`` or ``failed``.
    counts
        As in the commit record.
    seconds
        Wall time for each stage.
    error
        Why it failed.
    """

    scene_id: str
    status: str
    counts: dict[str, int]
    seconds: dict[str, float]
    error: str | None = None


class Committer:
    """Writes scenes into one output."""

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self._storage = storage
        self._settings = settings
        self._records = Records(storage)
        self._software = software_versions()

    def succeed(
        self,
        task: SceneTask,
        header: SceneHeader,
        detections: SceneDetections,
        seconds: dict[str, float],
    ) -> SceneOutcome:
        """Write the rows, then the record.

        Raises
        ------
        OutputError
            If the storage refuses.
        """
        start = time.perf_counter()
        scene, schema = task.scene, self._settings.schema
        rows = SceneRows(
            detections,
            header,
            schema,
            scene_id=scene.id,
            image_path=public_href(scene.href),
            time=scene.datetime,
        )
        version = self._settings.scene_version(task)
        key = self._data_key(task, version)
        with tempfile.TemporaryDirectory(prefix="geosweep-") as folder:
            local = Path(folder) / "rows.parquet"
            write_geoparquet(rows.groups(), local, rows.schema, crs=schema.crs, bounds=rows.bounds)
            size, checksum = local.stat().st_size, multihash(local)
            self._storage.put_file(key, local)
        timings = seconds | {"write": time.perf_counter() - start}
        status = "succeeded" if len(rows) else "empty"
        self._commit(
            task,
            status,
            detections.counts,
            timings,
            data=key,
            rows=len(rows),
            data_size=size,
            data_checksum=checksum,
            columns=tuple((field.name, str(field.type)) for field in rows.schema),
            data_crs=schema.crs,
        )
        return SceneOutcome(scene.id, status, detections.counts, timings)

    def fail(
        self, task: SceneTask, error: str, counts: dict[str, int] | None = None
    ) -> SceneOutcome:
        """Record that a scene can't be done, and why."""
        reason = scrub(error)
        tally = counts or {"windows": 0, "windows_failed": 0}
        self._commit(task, "failed", tally, {}, data=None, rows=0, error=reason)
        return SceneOutcome(task.scene.id, "failed", tally, {}, reason)

    def _commit(
        self,
        task: SceneTask,
        status: str,
        counts: dict[str, int],
        timings: dict[str, float],
        *,
        data: str | None,
        rows: int,
        error: str | None = None,
        **of_data: Any,
    ) -> None:
        record = SceneRecord(
            scene=task.scene,
            status=status,  # type: ignore[arg-type]
            version=self._settings.scene_version(task),
            fingerprint=self._settings.fingerprint,
            counts=counts,
            timings={name: round(value, 3) for name, value in timings.items()},
            data=data,
            rows=rows,
            error=error,
            software=self._software,
            models=self._settings.models,
            created=datetime.now(UTC),
            **of_data,
        )
        if self._records.commit(record, replace=False):
            return
        # A record stands already: an older version or a failure, to be replaced, or this very one,
        # written by a run at our side.
        old = self._records.read(task.scene.id)
        if old is not None and _settled(old, record):
            if data is None or old.data in (None, data):
                return
            # Its rows have moved into a shared file: ours is one too many, unless that one is lost.
            if self._storage.exists(old.data):
                self._storage.delete(data)
                return
        self._replace(old, record)

    def _replace(self, old: SceneRecord | None, record: SceneRecord) -> None:
        """Put a record in the place of another: readers see the old one until they see the new one."""
        dead = None
        if old is not None:
            scene_id, before = record.scene.id, old.predecessor
            if self._settings.keep_old and old.status != "failed" and old.version != record.version:
                keep_version(self._storage, scene_id)
                before = old.version
            elif own_file(old) and old.data != record.data:
                # A pass that was killed may have kept it already.
                dead = None if is_kept(self._storage, scene_id, old.version) else old.data
            record = replace(record, predecessor=before)
        self._records.commit(record, replace=True)
        if dead is not None:
            self._storage.delete(dead)

    def _data_key(self, task: SceneTask, version: str) -> str:
        folder = partition_folder(self._settings.job.output.partition, task.scene)
        return f"{folder}/{task.scene.id}-{version}.parquet"


def _settled(old: SceneRecord, new: SceneRecord) -> bool:
    """Whether the record that stands is as good as ours: a failure never replaces a result."""
    return old.version == new.version and (old.status != "failed" or new.status == "failed")


def finished(record: SceneRecord | Standing | None, version: str, *, retry_failed: bool) -> bool:
    """Whether a scene needs no work: it is recorded for this very version."""
    if record is None or record.version != version:
        return False
    return record.status != "failed" or not retry_failed
