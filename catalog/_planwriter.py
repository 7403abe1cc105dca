"""A plan streamed to disk, and hrefs as they were before they lost what grants access."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from ._scratch import Scratch
from .errors import StorageError
from .hrefs import stable_href
from .scene import Scene, SideAsset

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Hrefs = Literal["whole", "signed", "cut"]

BATCH = 4096
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
        self._latest: datetime | None = None
        self._unknown = False
        self._path = path

    def __enter__(self) -> Self:
        import pyarrow.parquet as pq

        from ._planrows import schema

        self._parquet: pq.ParquetWriter = pq.ParquetWriter(self._path, schema(), compression="zstd")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _disk_errors():
            self._parquet.close()

    def add(self, scenes: Iterable[Scene], *, retained: bool = False) -> int:
        """Write scenes, retained ones last; return how many there were."""
        from ._planrows import to_rows

        stream = iter(scenes)
        start = number = RETAINED if retained else 0
        while batch := list(islice(stream, BATCH)):
            rows = to_rows(batch, retained=retained, frozen=self.frozen)
            with _disk_errors():
                self._parquet.write_batch(rows)
            for scene in batch:
                self._note_hrefs(scene, number)
                number += 1
            if not retained:
                self._note_times(batch, rows.column("updated").to_pylist())
        return number - start

    def describe(self, metadata: Mapping[str, str]) -> None:
        """Add to the file's metadata."""
        self._parquet.add_key_value_metadata(dict(metadata))

    def _note_times(self, scenes: list[Scene], moments: list[datetime | None]) -> None:
        for scene, moment in zip(scenes, moments, strict=True):
            if moment is None:
                self._unknown = True
            elif self._latest is None or moment > self._latest:
                self._latest, self.watermark = moment, scene.updated
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
