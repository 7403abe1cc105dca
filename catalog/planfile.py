"""The frozen plan: which scenes an output is made of, kept in the output as stac-geoparquet."""

from __future__ import annotations

import base64
import json
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Self

from ._planwriter import BATCH, RETAINED, Hrefs, OwnHrefs, PlanWriter
from .errors import OutputError
from .scene import Scene
from .storage import MissingKeyError

if TYPE_CHECKING:
    import pyarrow as pa
    from shapely.geometry.base import BaseGeometry

    from .storage import Storage

PLAN = "plan.parquet"
ABOUT = "geosweep:plan"


@dataclass(frozen=True, slots=True)
class PlanHead:
    """What a plan's file says of itself.

    Parameters
    ----------
    id
        Of this plan alone, whatever is in it.
    key
        Hash of what decides the set of scenes.
    count, retained
        Scenes that are planned, and those that are gone from the source but not withdrawn.
    duplicates
        Repeated items that the source gave.
    watermark
        The latest `Scene.updated`, verbatim; None if a planned scene has none that is a time.
    hrefs
        ``whole`` if the file has them as the source gave them; ``signed`` if some lost what grants
        access, so that they have to be signed again; ``cut`` if some lost more than that.
    frozen
        When the source was asked, in RFC 3339.
    area
        Area of interest as base64 of WKB; None where there is no limit.
    """

    id: str
    key: str
    count: int
    retained: int
    duplicates: int
    watermark: str | None
    hrefs: Hrefs
    frozen: str
    area: str | None


class PlanFile:
    """A frozen plan, on this machine's disk while it is open; made by `freeze` or `open`.

    *Retained* scenes are gone from the source but not withdrawn from the output: they count in
    ownership, and are neither swept nor counted as planned.
    """

    def __init__(self, file: Any, head: PlanHead, own: OwnHrefs | None = None) -> None:
        self._file = file
        self._forget = weakref.finalize(self, file.close)
        self._own = own
        self.head = head

    @classmethod
    def freeze(
        cls,
        storage: Storage | None,
        scenes: Iterable[Scene],
        *,
        key: str,
        retained: Iterable[Scene] = (),
        duplicates: int | Callable[[], int] = 0,
        area: BaseGeometry | None = None,
    ) -> Self:
        """Write a plan into an output, in place of an earlier one, with flat memory.

        Hrefs are written without anything that grants access. The plan that is returned still knows
        them as they were.

        Parameters
        ----------
        storage
            Of the output; None for a plan that is not kept.
        scenes, retained
            In the order in which they are to be swept; with ids of their own throughout.
        key
            Hash of what decides the set of scenes.
        duplicates
            Repeated items that the source gave; a function is asked when all scenes are known.
        area
            Area of interest in EPSG:4326.
        """
        file = NamedTemporaryFile(prefix="geosweep-plan-", suffix=".parquet")  # noqa: SIM115
        writer = PlanWriter(Path(file.name), datetime.now(UTC))
        with writer:
            count = writer.add(scenes)
            gone = writer.add(retained, retained=True)
            head = PlanHead(
                id=uuid.uuid4().hex,
                key=key,
                count=count,
                retained=gone,
                duplicates=duplicates() if callable(duplicates) else duplicates,
                watermark=writer.watermark,
                hrefs=writer.hrefs,
                frozen=writer.frozen.isoformat(),
                area=None if area is None else base64.b64encode(area.wkb).decode(),
            )
            writer.describe({ABOUT: json.dumps(asdict(head))})
        if storage is not None:
            storage.put_file(PLAN, Path(file.name))
        return cls(file, head, writer.own)

    @classmethod
    def open(cls, storage: Storage) -> Self | None:
        """Open the plan of an output, or return None where there is none.

        Raises
        ------
        OutputError
            If the file is no plan.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = NamedTemporaryFile(prefix="geosweep-plan-", suffix=".parquet")  # noqa: SIM115
        try:
            storage.get_file(PLAN, Path(file.name))
        except MissingKeyError:
            return None
        try:
            metadata = pq.read_metadata(file.name).metadata or {}
            head = PlanHead(**json.loads(metadata[ABOUT.encode()]))
        except (pa.ArrowException, KeyError, TypeError, ValueError):
            raise OutputError(
                f"{storage.uri(PLAN)} is not a plan of geosweep: remove it to have the job planned anew"
            ) from None
        return cls(file, head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the local copy; the plan in the output stays."""
        self._forget()
        if self._own is not None:
            self._own.close()

    @property
    def key(self) -> str:
        """Hash of what decides the set of scenes."""
        return self.head.key

    @property
    def count(self) -> int:
        """Planned scenes; retained ones are not among them."""
        return self.head.count

    @property
    def duplicates(self) -> int:
        """Repeated items that the source gave."""
        return self.head.duplicates

    @property
    def watermark(self) -> str | None:
        """The latest `updated` of the source, verbatim; None if a planned scene lacks one."""
        return self.head.watermark

    @property
    def hrefs(self) -> Hrefs:
        """What became of the hrefs of this plan as it is open here."""
        return "whole" if self._own is not None else self.head.hrefs

    @property
    def area(self) -> BaseGeometry | None:
        """The area of interest in EPSG:4326."""
        import shapely

        area = self.head.area
        return None if area is None else shapely.from_wkb(base64.b64decode(area))

    def ids(self) -> Iterator[str]:
        """Yield the ids of the planned scenes in order; much faster than the scenes."""
        names = (
            name
            for batch in self.batches(["geosweep:scene_id"])
            for name in batch.column(0).to_pylist()
        )
        return islice(names, self.count)

    def scenes(self) -> Iterator[Scene]:
        """Yield the planned scenes in order, lazily; may be called again at any time."""
        return self._read(retained=False)

    def retained(self) -> Iterator[Scene]:
        """Yield the retained scenes in order, lazily."""
        return self._read(retained=True)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield some or all columns of all rows, retained scenes last; see `_planschema.schema`."""
        import pyarrow.parquet as pq

        chosen = None if columns is None else list(columns)
        with pq.ParquetFile(self._file.name) as parquet:
            # One iterator over the whole file would keep something of each row group until its end.
            for group in range(parquet.num_row_groups):
                yield from parquet.iter_batches(BATCH, row_groups=[group], columns=chosen)

    def _read(self, *, retained: bool) -> Iterator[Scene]:
        from ._planrows import from_rows

        if not (self.head.retained if retained else self.head.count):
            return
        number = RETAINED if retained else 0
        for batch in self.batches():
            for scene, gone in from_rows(batch):
                if gone != retained:
                    if gone:
                        return  # retained scenes stand last
                    continue
                yield scene if self._own is None else self._own.restore(number, scene)
                number += 1
