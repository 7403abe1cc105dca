"""Taking results out of an output: a scene that is withdrawn, and files that nobody points to."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import tee
from typing import TYPE_CHECKING, Any, NamedTuple

from .lease import somebody_writes
from .records import Records, is_own_file, item_key
from .versions import drop_versions, is_kept

if TYPE_CHECKING:
    from .ledger import Ledger, Standing
    from .storage import Storage

_OWN = re.compile(r"(?P<scene>.+)-(?P<version>[0-9a-f]{16})\.parquet")
_SHARED = re.compile(r"part-[0-9a-f]+\.parquet")

log = logging.getLogger("geosweep")


class _Own(NamedTuple):
    """A data file of one scene alone, by its name."""

    key: str
    scene_id: str
    version: str


def withdraw(storage: Storage, standing: Standing) -> None:
    """Remove a scene's record, then its own data file, then its older versions.

    In this order readers see the scene with all its rows or not at all. A pass that is killed on the
    way leaves files that nobody points to, for `sweep_orphans`.
    """
    storage.delete(item_key(standing.scene_id))
    if standing.data and is_own_file(standing.data, standing.scene_id, standing.version):
        storage.delete(standing.data)
    drop_versions(storage, standing.scene_id)


def sweep_orphans(storage: Storage, ledger: Ledger) -> int:
    """Remove scenes' own data files that no record points to; returns how many.

    They are left by runs that were killed between two steps. Only whoever holds the output's lease may
    call this. While somebody else writes, nothing is removed: a file is there before its record.

    Parameters
    ----------
    storage
        Of the output.
    ledger
        Of the output, from an earlier moment. Files that it knows are passed by; of others, the records
        are read again.
    """
    found = list(_orphans(storage, _unclaimed(storage, ledger)))
    if not found or somebody_writes(storage):
        return 0
    # Once more, now that nobody writes.
    dead = [key for key, *_ in _orphans(storage, iter(found))]
    for key in dead:
        storage.delete(key)
    log.info("removed %d data files that were left by runs that were cut off", len(dead))
    return len(dead)


def _unclaimed(storage: Storage, ledger: Ledger) -> Iterator[_Own]:
    """Scenes' own files that the ledger's records don't point to: of late, or not at all."""
    for key in storage.list("data/", ".parquet"):
        name = key.rpartition("/")[2]
        match = _OWN.fullmatch(name)
        if match is None or _SHARED.fullmatch(name):
            continue
        standing = ledger.get(match["scene"])
        if standing is None or standing.data != key:
            yield _Own(key, match["scene"], match["version"])


def _orphans(storage: Storage, files: Iterator[_Own]) -> Iterator[_Own]:
    """Those of some files that no record points to now."""
    files, again = tee(files)
    items = Records(storage).fetch(file.scene_id for file in again)
    for file, item in zip(files, items, strict=True):
        claimed = item is not None and _data_of(item) == file.key
        if not claimed and not is_kept(storage, file.scene_id, file.version):
            yield file


def _data_of(item: dict[str, Any]) -> str | None:
    asset = (item.get("assets") or {}).get("data")
    return None if asset is None else str(asset["href"]).removeprefix("../")
