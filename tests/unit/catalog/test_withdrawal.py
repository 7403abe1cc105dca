"""Taking scenes out of an output, and files that nobody points to."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from geosweep.catalog import Records, Scene, SceneRecord, open_storage
from geosweep.catalog.lease import presence
from geosweep.catalog.ledger import Ledger
from geosweep.catalog.versions import keep_version
from geosweep.catalog.withdrawal import sweep_orphans, withdraw

ONE, TWO = "1" * 16, "2" * 16


@pytest.fixture(params=["disk", "objects"])
def storage(request, tmp_path):
    return open_storage(tmp_path if request.param == "disk" else f"memory://{uuid.uuid4()}")


def commit(storage, name, version=ONE, data=None):
    """Commit a scene, with a data file that is its own unless another one is named."""
    key = data or f"data/{name}-{version}.parquet"
    storage.put(key, b"rows")
    record = SceneRecord(
        scene=Scene(id=name, href=f"/{name}.tif", item_id=name),
        status="succeeded",
        version=version,
        fingerprint="f",
        counts={},
        timings={},
        data=key,
        rows=1,
        created=datetime(2024, 5, 1, tzinfo=UTC),
    )
    Records(storage, "c").commit(record, replace=True)


def files(storage):
    return sorted(storage.list("data"))


def sweep(storage):
    with Ledger.read(storage) as ledger:
        return sweep_orphans(storage, ledger)


def take_out(storage, name):
    with Ledger.read(storage) as ledger:
        standing = ledger.get(name)
        assert standing is not None
        withdraw(storage, standing)


def test_a_scene_goes_with_its_file_and_its_versions(storage):
    commit(storage, "a")
    keep_version(storage, "a")
    commit(storage, "a", TWO)
    commit(storage, "b")
    take_out(storage, "a")
    assert list(Records(storage).ids()) == ["b"]
    assert files(storage) == [f"data/b-{ONE}.parquet"]
    assert list(storage.list("versions")) == []


def test_a_shared_file_stays(storage):
    shared = f"data/part-{'a' * 16}.parquet"
    commit(storage, "a", data=shared)
    commit(storage, "b", data=shared)
    take_out(storage, "a")
    assert files(storage) == [shared]


def test_files_that_nobody_points_to_go(storage):
    commit(storage, "a")
    keep_version(storage, "a")
    commit(storage, "a", TWO)
    commit(storage, "b", data=f"data/part-{'a' * 16}.parquet")
    wanted = [*files(storage), "data/notes.parquet"]
    for key in ("data/notes.parquet", f"data/b-{ONE}.parquet", f"data/year=2020/c-{ONE}.parquet"):
        storage.put(key, b"left behind")
    assert sweep(storage) == 2
    assert files(storage) == sorted(wanted)
    assert sweep(storage) == 0


def test_what_was_committed_since_the_ledger_was_read_stays(storage):
    commit(storage, "a")
    with Ledger.read(storage) as ledger:
        commit(storage, "a", TWO)
        commit(storage, "b")
        assert sweep_orphans(storage, ledger) == 0
    assert sweep(storage) == 1
    assert files(storage) == [f"data/a-{TWO}.parquet", f"data/b-{ONE}.parquet"]


def test_nothing_goes_while_somebody_writes(storage):
    storage.put(f"data/a-{ONE}.parquet", b"its record is on the way")
    with presence(storage, "run", beat_s=0.05):
        assert sweep(storage) == 0
    assert sweep(storage) == 1
