"""Taking results out of an output: a scene that is withdrawn, and files that nobody points to."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .lease import somebody_writes
from .records import Records, is_own_file, item_key
from .versions import drop_versions, is_kept

if TYPE_CHECKING:
    from .ledger import Ledger, Standing
    from .storage import Storage

_OWN = re.compile(r"(?P<scene>.+)-(?P<version>[0-9a-f]{16})\.parquet")
_SHARED = re.compile(r"part-[0-9a-f]+\.parquet")

log = logging.getLogger("geosweep")


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
        Of the output, from any earlier moment: records that differ from it are read again.
    """
    found = list(_orphans(storage, ledger))
    if not found or somebody_writes(storage):
        return 0
    removed = 0
    for key, scene_id, version in found:
        if _is_orphan(storage, key, scene_id, version):
            storage.delete(key)
            removed += 1
    log.info("removed %d data files that were left by runs that were cut off", removed)
    return removed


def _orphans(storage: Storage, ledger: Ledger) -> Iterator[tuple[str, str, str]]:
    for key in storage.list("data/", ".parquet"):
        name = key.rpartition("/")[2]
        match = _OWN.fullmatch(name)
        if match is None or _SHARED.fullmatch(name):
            continue
        scene_id, version = match["scene"], match["version"]
        standing = ledger.get(scene_id)
        if standing is not None and standing.data == key:
            continue
        if _is_orphan(storage, key, scene_id, version):
            yield key, scene_id, version


def _is_orphan(storage: Storage, key: str, scene_id: str, version: str) -> bool:
    record = Records(storage).read(scene_id)
    if record is not None and record.data == key:
        return False
    return not is_kept(storage, scene_id, version)
