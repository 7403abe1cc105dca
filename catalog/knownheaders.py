"""Headers of rasters that an earlier plan knows, so that unchanged ones need not be opened again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._scratch import Scratch
from .header import Header
from .hrefs import is_remote
from .intervals import format_time, parse_time

if TYPE_CHECKING:
    from .planfile import PlanFile

_TABLE = """CREATE TABLE header (
    href TEXT PRIMARY KEY, updated TEXT, checksum TEXT, crs TEXT, grid TEXT, datetime TEXT
) WITHOUT ROWID"""
_STAMPS = "CREATE TABLE stamp (href TEXT PRIMARY KEY, checksum TEXT) WITHOUT ROWID"


class KnownHeaders:
    """What a plan says of its rasters, by href and version; read when it is first asked.

    A context manager, and safe to be asked from several threads. Rows lie on disk.

    Parameters
    ----------
    plan
        Open for as long as this is in use.
    """

    def __init__(self, plan: PlanFile) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._table: Scratch | None = None
        self._stamps: Scratch | None = None

    def __enter__(self) -> KnownHeaders:
        return self

    def __exit__(self, *_: object) -> None:
        for table in (self._table, self._stamps):
            if table is not None:
                table.close()

    def find(self, href: str, updated: str | None, checksum: str | None) -> Header | None:
        """Return the header of a raster if this very version of it was planned.

        A raster of which nobody says which version it is, is never known.
        """
        if (updated is None and checksum is None) or self._plan.hrefs == "cut":
            return None
        from ._planrows import unsigned

        with self._lock:
            if self._table is None:
                self._table = Scratch(_TABLE)
                self._table.fill(
                    "INSERT OR IGNORE INTO header VALUES (?, ?, ?, ?, ?, ?)", self._rows()
                )
            row = self._table.first(
                "SELECT crs, grid, datetime FROM header WHERE href = ? AND updated IS ? AND checksum IS ?",
                (unsigned(href), updated, checksum),
            )
        if row is None:
            return None
        crs, grid, time = row
        transform, shape = json.loads(grid)
        return Header(
            crs,
            None if transform is None else tuple(transform),
            (shape[0], shape[1]),
            None if time is None else parse_time(time),
        )

    def stamp(self, href: str) -> str | None:
        """Return what a remote raster's server said of its version, where nobody else said anything."""
        from ._planrows import unsigned

        with self._lock:
            if self._stamps is None:
                self._stamps = Scratch(_STAMPS)
                self._stamps.fill("INSERT OR IGNORE INTO stamp VALUES (?, ?)", self._stamped())
            row = self._stamps.first("SELECT checksum FROM stamp WHERE href = ?", (unsigned(href),))
        return None if row is None else row[0]

    def _stamped(self) -> Iterator[tuple[str, str]]:
        from ._planrows import unsigned

        for scene in self._plan.scenes():
            for part in (scene, *scene.assets.values(), *scene.bands.values()):
                if part.updated is None and part.checksum is not None and is_remote(part.href):
                    yield unsigned(part.href), part.checksum

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        from ._planrows import unsigned

        for scene in self._plan.scenes():
            # Where bands are rasters of their own, the scene has the grid of only one of them.
            if scene.shape is None or scene.error is not None or scene.bands:
                continue
            yield (
                unsigned(scene.href),
                scene.updated,
                scene.checksum,
                scene.crs,
                json.dumps([scene.transform, scene.shape]),
                None if scene.datetime is None else format_time(scene.datetime),
            )
