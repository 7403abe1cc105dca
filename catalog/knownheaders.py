"""Headers of rasters that an earlier plan knows, so that unchanged ones need not be opened again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._scratch import Scratch
from .header import Header
from .intervals import format_time, parse_time

if TYPE_CHECKING:
    from .planfile import PlanFile

_TABLE = """CREATE TABLE header (
    href TEXT PRIMARY KEY, updated TEXT, checksum TEXT, crs TEXT, grid TEXT, datetime TEXT
) WITHOUT ROWID"""


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

    def __enter__(self) -> KnownHeaders:
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._table.close()

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
