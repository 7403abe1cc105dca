"""The ledger: what the records say, the same as `Records` says, from disk and from an object store."""

import json
import uuid
from datetime import UTC, datetime

import pytest

from geosweep.catalog import Records, Scene, SceneRecord, open_storage
from geosweep.catalog.errors import OutputError
from geosweep.catalog.ledger import Ledger, Standing


@pytest.fixture(params=["disk", "objects"])
def storage(request, tmp_path):
    return open_storage(tmp_path if request.param == "disk" else f"memory://{uuid.uuid4()}")


def record(number, *, item=None, collection="c", status="succeeded", asset="image"):
    name = f"s{number:03d}"
    return SceneRecord(
        scene=Scene(
            id=name,
            href=f"https://example.com/{name}.tif?sig=secret",
            item_id=item or name,
            collection=collection,
            asset=asset,
            updated=f"2024-01-01T00:00:{number % 60:02d}Z" if number % 2 else None,
        ),
        status=status,
        version=f"v{number}",
        fingerprint="f",
        counts={},
        timings={},
        data=None if status == "failed" else f"data/{name}-v{number}.parquet",
        rows=0 if status == "failed" else number,
        created=datetime(2024, 5, 1, tzinfo=UTC),
    )


def commit(storage, *records):
    for one in records:
        Records(storage, "c").commit(one, replace=True)


def test_every_record_stands_in_it_as_it_was_written(storage):
    made = [record(n, status="failed" if n % 7 == 0 else "succeeded") for n in range(200)]
    commit(storage, *reversed(made))
    with Ledger.read(storage) as ledger:
        assert len(ledger) == 200
        assert list(ledger) == [
            Standing(
                one.scene.id,
                one.version,
                one.status,
                one.fingerprint,
                one.scene.item_id,
                one.scene.collection,
                one.scene.asset,
                one.scene.source_version,
                one.scene.updated,
                one.rows,
                one.data,
            )
            for one in made
        ]
        assert ledger.get("s003") == list(ledger)[3]
        assert ledger.get("s999") is None


def test_scenes_are_found_by_their_item(storage):
    commit(
        storage,
        record(1, item="twin", asset="a"),
        record(2, item="twin", asset="b"),
        record(3, item="twin", collection="other"),
        record(4, item="plain", collection=None),
    )
    with Ledger.read(storage) as ledger:
        assert [one.scene_id for one in ledger.of_item("c", "twin")] == ["s001", "s002"]
        assert [one.scene_id for one in ledger.of_item("other", "twin")] == ["s003"]
        assert [one.scene_id for one in ledger.of_item(None, "plain")] == ["s004"]
        assert ledger.of_item("c", "plain") == []


def test_an_output_without_records_is_an_empty_ledger(storage):
    with Ledger.read(storage) as ledger:
        assert (len(ledger), list(ledger), ledger.get("a")) == (0, [], None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "s001.json is not a STAC item: remove it"),
        (b"[]", "s001.json is not a STAC item: remove it"),
        (b'{"id": "s001", "properties": {}}', "s001.json is not a geosweep record"),
    ],
)
def test_a_broken_record_is_the_error_that_records_raise(storage, content, message):
    commit(storage, record(0))
    storage.put("items/s001.json", content)
    for read in (Ledger.read, lambda storage: list(Records(storage).all())):
        with pytest.raises(OutputError, match=message):
            read(storage)


def test_it_keeps_what_it_read_and_leaves_nothing_behind(storage, tmp_path):
    commit(storage, record(1))
    with Ledger.read(storage) as ledger:
        commit(storage, record(2))
        assert len(ledger) == 1
    assert [path.name for path in tmp_path.rglob("*.json")] in ([], ["s001.json", "s002.json"])
    item = json.loads(storage.get("items/s001.json"))
    assert "secret" not in json.dumps(item)


def test_listing_without_order_gives_the_same_keys(storage):
    for key in ("items/b.json", "items/deep/a.json", "items/c.txt", "items.json"):
        storage.put(key, b"{}")
    for prefix, suffix in (("items/", ".json"), ("", ""), ("none/", "")):
        listed = list(storage.list(prefix, suffix, sort=False))
        assert sorted(listed) == sorted(storage.list(prefix, suffix))
