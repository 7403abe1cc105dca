from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime

import pystac
import pystac.validation
import pytest
import rustac
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geosweep.catalog import (
    OutputError,
    Records,
    Scene,
    SceneRecord,
    from_item,
    open_source,
    open_storage,
    read_collection,
    to_item,
    write_collection,
    write_snapshot,
)
from geosweep.catalog.geoparquet import read_items

NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)
SCENE = Scene(
    id="s1",
    href="https://h/s1.tif",
    item_id="s/1",
    collection="naip",
    asset="image",
    datetime=datetime(2022, 6, 1, 12, 30, tzinfo=UTC),
    updated="2023-01-01T00:00:00Z",
    checksum="1220ab",
    footprint=shapely.box(-111, 44, -110, 45),
    crs="EPSG:32612",
    transform=(0.1, 0.0, 5e5, 0.0, -0.1, 4.9e6),
    shape=(100, 200),
)
BAD = Scene(id="bad", href="/data/bad.tif", item_id="bad", error="/data/bad.tif does not exist")


def record(scene: Scene = SCENE, status="succeeded", **fields) -> SceneRecord:
    usual = {
        "version": "v1",
        "fingerprint": "f1",
        "counts": {"windows": 4, "detections": 7},
        "timings": {"read": 0.5, "detect": 2.0},
        "data": None if status == "failed" else f"data/{scene.id}-v1.parquet",
        "rows": 7 if status == "succeeded" else 0,
        "created": NOW,
        "software": {"geosweep": "0.1.0"},
        "models": {"geosweep/tree": "abc"},
    }
    return SceneRecord(scene=scene, status=status, **(usual | fields))


FAILED = record(BAD, "failed", error=BAD.error, counts={}, timings={})
EMPTY = record(dataclasses.replace(SCENE, id="s2"), "empty")


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path):
    storage = open_storage(tmp_path / "out" if request.param == "local" else f"memory://{tmp_path}")
    _collection(storage)
    return storage


def _collection(storage, **fields):
    usual = {
        "collection_id": "trees",
        "description": "Trees",
        "fingerprint": "f1",
        "job": {"name": "trees", "output": {"path": "out"}},
        "columns": [("detection_id", "string", "hash"), ("score", "float", "0 to 1")],
        "models": {"geosweep/tree": "abc"},
        "software": {"geosweep": "0.1.0"},
    }
    return write_collection(storage, **(usual | fields))


def _validate(item: dict) -> None:
    # The core schemas come with pystac; those of extensions would have to be fetched.
    pystac.validation.validate_dict(json.loads(json.dumps(item)) | {"stac_extensions": []})


@pytest.mark.parametrize(
    "rec",
    [
        record(bbox=(-110.5, 44.1, -110.2, 44.3), data_size=1234, extra={"note": [1, "a"]}),
        EMPTY,
        FAILED,
        record(dataclasses.replace(SCENE, datetime=None, crs="PROJCS[" + "x" * 80 + "]")),
    ],
)
def test_item_is_valid_and_comes_back(rec):
    item = json.loads(json.dumps(to_item(rec, collection_id="trees")))
    _validate(item)
    assert item["stac_version"] == "1.1.0"
    assert from_item(item) == rec
    assert ("data" in item["assets"]) == (rec.status != "failed")


def test_what_the_item_says():
    item = to_item(record(data_size=99), collection_id="trees")
    assert item["id"] == "s1"
    assert item["bbox"] == [-111, 44, -110, 45]
    assert item["properties"]["datetime"] == "2022-06-01T12:30:00Z"
    assert item["properties"]["proj:code"] == "EPSG:32612"
    assert item["assets"]["data"]["href"] == "../data/s1-v1.parquet"
    assert item["assets"]["data"]["file:size"] == 99
    assert {link["rel"] for link in item["links"]} == {
        "root",
        "parent",
        "collection",
        "derived_from",
    }
    failed = to_item(FAILED, collection_id="trees")
    assert failed["geometry"] is None and "bbox" not in failed
    assert failed["properties"]["datetime"] is None
    assert failed["properties"]["geosweep:datetime_unknown"] is True
    assert failed["properties"]["start_datetime"] == "2026-11-21T05:00:00Z"


@given(secret=st.text("abcdef0123456789", min_size=16, max_size=40))
def test_no_secret_reaches_an_item(secret):
    href = f"https://user:{secret}@h/x.tif?X-Amz-Signature={secret}"
    scene = dataclasses.replace(BAD, href=href, error=f"{href} can't be opened")
    rec = record(scene, "failed", error=f"403 for {href}")
    assert secret not in json.dumps(to_item(rec, collection_id="c"))


def test_commit_once(storage):
    records = Records(storage)
    assert records.read("s1") is None
    assert records.commit(record(), replace=False)
    assert not records.commit(record(version="v2", data="data/s1-v2.parquet"), replace=False)
    assert records.read("s1").version == "v1"
    assert records.commit(record(version="v2", data="data/s1-v2.parquet"), replace=True)
    assert records.read("s1").version == "v2"
    records.commit(FAILED, replace=False)
    records.commit(EMPTY, replace=False)
    assert list(records.ids()) == ["bad", "s1", "s2"]
    assert [rec.status for rec in records.all()] == ["failed", "succeeded", "empty"]
    assert json.loads(storage.get("items/s1.json"))["collection"] == "trees"


def test_commit_needs_a_collection(tmp_path):
    with pytest.raises(OutputError, match="write the collection first"):
        Records(open_storage(tmp_path)).commit(record(), replace=False)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"properties": {}}'])
def test_a_broken_record_is_named(storage, content):
    storage.put("items/odd.json", content.encode())
    with pytest.raises(OutputError, match=r"items/odd\.json.*remove it"):
        Records(storage).read("odd")


def test_records_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="time zone"):
        record(created=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="failed"):
        record(status="failed", data="data/x.parquet")
    with pytest.raises(ValueError):
        Records(open_storage("memory://nan"), "c").commit(
            record(timings={"read": math.nan}), replace=True
        )


def test_collection_is_valid_and_stable(storage):
    first = storage.get("collection.json")
    assert _collection(storage)
    assert storage.get("collection.json") == first
    assert not _collection(storage, description="other", replace=False)
    assert storage.get("collection.json") == first
    collection = read_collection(storage)
    _validate(collection)
    assert collection["geosweep:fingerprint"] == "f1"
    (provider,) = collection["providers"]
    assert provider["processing:software"] == {"geosweep": "0.1.0"}  # the extension needs one
    assert collection["table:columns"][1]["name"] == "score"


def test_collection_holds_no_secret(storage):
    job = {
        "source": {"rasters": ["https://u:HUSHHUSH@h/x.tif?sig=HUSHHUSH"]},
        "cluster": {"api_token": "HUSHHUSH", "env": {"AWS_SECRET_ACCESS_KEY": "HUSHHUSH"}},
    }
    _collection(storage, job=job)
    assert b"HUSH" not in storage.get("collection.json")
    assert b"https://h/x.tif" in storage.get("collection.json")


def test_pystac_reads_the_output_from_disk(tmp_path):
    storage = open_storage(tmp_path)
    _collection(storage)
    Records(storage).commit(record(), replace=False)
    item = pystac.Item.from_file(str(tmp_path / "items" / "s1.json"))
    assert item.get_collection().id == "trees"
    assert item.get_root().id == "trees"
    assert item.assets["data"].get_absolute_href() == str(tmp_path / "data" / "s1-v1.parquet")


def test_a_foreign_collection_json_is_refused(tmp_path):
    storage = open_storage(tmp_path)
    assert read_collection(storage) is None
    storage.put("collection.json", b'{"type": "Catalog"}')
    with pytest.raises(OutputError, match="not a STAC collection"):
        read_collection(storage)


def test_snapshot_holds_every_item(storage, tmp_path):
    records = Records(storage)
    other = record(dataclasses.replace(SCENE, id="s3"), counts={"new": 1}, extra={"a": 1})
    for rec in (record(extra={"a": "text"}), EMPTY, FAILED, other):
        records.commit(rec, replace=False)
    assert write_snapshot(storage) == 4
    path = tmp_path / "snapshot.parquet"
    path.write_bytes(storage.get("items.parquet"))
    for found, kept in zip(read_items(path), records.items(), strict=True):
        _validate(found)
        assert from_item(found) == from_item(kept)
        assert found["assets"] == kept["assets"]
    once = storage.get("items.parquet")
    write_snapshot(storage)
    assert storage.get("items.parquet") == once


def test_snapshot_can_be_read_by_others(tmp_path):
    storage = open_storage(tmp_path)
    _collection(storage)
    for number in range(3):
        scene = dataclasses.replace(SCENE, id=f"s{number}")
        Records(storage).commit(record(scene), replace=False)
    write_snapshot(storage)
    items = rustac.read_sync(str(tmp_path / "items.parquet"))["features"]
    assert [item["id"] for item in items] == ["s0", "s1", "s2"]
    assert items[0]["properties"]["geosweep:counts"] == {"windows": 4, "detections": 7}
    import geopandas

    frame = geopandas.read_parquet(tmp_path / "items.parquet")
    assert frame.crs == "OGC:CRS84"
    assert frame.geometry[0].equals(SCENE.footprint)


def test_snapshot_with_null_geometry_in_geopandas(tmp_path):
    import geopandas

    storage = open_storage(tmp_path)
    _collection(storage)
    for rec in (record(), FAILED):
        Records(storage).commit(rec, replace=False)
    write_snapshot(storage)
    frame = geopandas.read_parquet(tmp_path / "items.parquet").set_index("id")
    assert frame.geometry["bad"] is None
    assert frame.geometry["s1"].equals(SCENE.footprint)


def test_snapshot_of_nothing(storage, tmp_path):
    assert write_snapshot(storage) == 0
    path = tmp_path / "items.parquet"
    path.write_bytes(storage.get("items.parquet"))
    source = open_source(path)
    assert list(source) == []
    assert source.total == 0
