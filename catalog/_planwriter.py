"""A plan streamed to disk, and hrefs as they were before they lost what grants access."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from ._scratch import Scratch
from .errors import StorageError
from .hrefs import stable_href
from .scene import Scene, SideAsset

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Hrefs = Literal["whole", "signed", "cut"]

BATCH = 4096
_REPETITIVE: Any = [
    "type",
    "stac_version",
    "stac_extensions.list.element",
    "collection",
    "assets.data.roles.list.element",
    "assets.data.storage:region",
    "proj:code",
    "proj:wkt2",
    "proj:transform.list.element",
    "proj:shape.list.element",
    "geosweep:asset",
    "geosweep:error",
]
"""Columns for which parquet is worth a dictionary; ids, hrefs and outlines are each scene's own."""
_NEVER = -(1 << 63)
RETAINED = 1 << 31
"""Number of the first retained scene; planned ones count from 0."""


class PlanWriter:
    """Streams scenes into a parquet file, a batch in memory at a time; a context manager.

    Parameters
    ----------
    path
        Of the file.
    frozen
        When the source was asked.

    Attributes
    ----------
    watermark
        The latest `Scene.updated` so far, verbatim; None if a planned scene has none that is a time.
    hrefs
        What became of hrefs, as `PlanHead` says.
    own
        Hrefs as they were given, where they can't be written; None if all could.
    """

    def __init__(self, path: Path, frozen: datetime) -> None:
        self.frozen = frozen
        self.hrefs: Hrefs = "whole"
        self.own: OwnHrefs | None = None
        self.watermark: str | None = None
        self._latest = _NEVER
        self._unknown = False
        self._path = path

    def __enter__(self) -> Self:
        import pyarrow.parquet as pq

        from ._planschema import schema

        self._parquet: pq.ParquetWriter = pq.ParquetWriter(
            self._path, schema(), compression="zstd", use_dictionary=_REPETITIVE
        )
        return self

    def __exit__(self, *_: object) -> None:
        with _disk_errors():
            self._parquet.close()

    def add(self, scenes: Iterable[Scene], *, retained: bool = False) -> int:
        """Write scenes, retained ones last; return how many there were."""
        from ._planrows import to_rows, unsigned

        stream = iter(scenes)
        start = number = RETAINED if retained else 0
        while batch := list(islice(stream, BATCH)):
            rows = to_rows(batch, retained=retained, frozen=self.frozen)
            with _disk_errors():
                self._parquet.write_batch(rows)
            for scene in batch:
                # Nearly all have one href, and nothing in it to hide.
                if scene.assets or scene.bands or unsigned(scene.href) != scene.href:
                    self._note_hrefs(scene, number)
                number += 1
            if not retained:
                self._note_times(batch, rows.column("updated"))
        return number - start

    def describe(self, metadata: Mapping[str, str]) -> None:
        """Add to the file's metadata."""
        self._parquet.add_key_value_metadata(dict(metadata))

    def _note_times(self, scenes: list[Scene], moments: pa.Array) -> None:
        self._unknown = self._unknown or moments.null_count > 0
        known = moments.cast("int64").fill_null(_NEVER).to_numpy()
        place = int(known.argmax())
        if known[place] > self._latest:
            self._latest, self.watermark = int(known[place]), scenes[place].updated
        if self._unknown:
            self.watermark = None

    def _note_hrefs(self, scene: Scene, number: int) -> None:
        from ._planrows import unsigned

        lost = [href for href in _hrefs(scene) if unsigned(href) != href]
        if not lost:
            return
        if any(stable_href(unsigned(href)) != stable_href(href) for href in lost):
            self.hrefs = "cut"
        elif self.hrefs == "whole":
            self.hrefs = "signed"
        self.own = self.own or OwnHrefs()
        self.own.keep(number, scene)


class OwnHrefs:
    """Hrefs as the source gave them, by the scene's number; on this machine's disk only."""

    def __init__(self) -> None:
        self._table = Scratch("CREATE TABLE hrefs (number INTEGER PRIMARY KEY, hrefs TEXT)")

    def keep(self, number: int, scene: Scene) -> None:
        """Note all hrefs of a scene."""
        hrefs = json.dumps(list(_hrefs(scene)))
        self._table.execute("INSERT INTO hrefs VALUES (?, ?)", (number, hrefs))

    def restore(self, number: int, scene: Scene) -> Scene:
        """Return the scene with the hrefs that it had before it was written."""
        row = self._table.first("SELECT hrefs FROM hrefs WHERE number = ?", (number,))
        if row is None:
            return scene
        hrefs = iter(json.loads(row[0]))

        def restored(assets: Mapping[str, SideAsset]) -> dict[str, SideAsset]:
            return {key: replace(other, href=next(hrefs)) for key, other in assets.items()}

        href = next(hrefs)
        return replace(scene, href=href, assets=restored(scene.assets), bands=restored(scene.bands))

    def close(self) -> None:
        """Forget them."""
        self._table.close()


def _hrefs(scene: Scene) -> Iterator[str]:
    yield scene.href
    for assets in (scene.assets, scene.bands):
        for other in assets.values():
            yield other.href


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The plan can't be written to the temporary folder ({error.strerror or error}); make room "
            "there, or set TMPDIR to a larger one."
        ) from error
