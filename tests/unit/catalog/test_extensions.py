"""What an output's documents say by STAC's extensions, as pystac's own classes read it.

The schemas of extensions are on the web only. What they demand beyond types, noted here from the
published ones, is what the tests below look for:

- table 1.2: ``table:columns`` among an item's properties; each column has a name.
- projection 2.0: ``proj:code`` is a string such as EPSG:4326, or null.
- file 2.1: ``file:checksum`` is lower-case hex (a multihash), ``file:size`` an integer.
- processing 1.2: a collection has a provider that is producer or processor, with processing fields;
  ``processing:software`` maps names to strings.
- version 1.2: ``version`` is a string.
- mlm 1.4: every summary is an object; assets have no ``mlm:name``, ``mlm:input``, ``mlm:output`` or
  ``mlm:hyperparameters``, and ``mlm:artifact_type`` exactly if their role is ``mlm:model``; names are
  of letters, digits, blanks and ``_.-``; the framework's version is a semantic one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import shapely
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import AssetGeneralMLMExtension, MLMExtension, TaskType
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.table import TableExtension
from pystac.extensions.version import BaseVersionExtension, VersionExtension

from geosweep.catalog import (
    Records,
    Scene,
    SceneRecord,
    from_item,
    geoparquet,
    open_storage,
    read_collection,
    to_item,
    write_collection,
    write_snapshot,
)
from geosweep.catalog.extent import Extent
from geosweep.catalog.mlm import UsedModel
from geosweep.catalog.stacitems import multihash

NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)
COLUMNS = (("detection_id", "string"), ("geometry", "binary"))
TREE = UsedModel(
    "detector",
    "geosweep/tree",
    "abc",
    "object-detection",
    ("Tree",),
    (3, 400, 400),
    architecture="singleshot-2",
    href="https://user:HUSH@h/tree.safetensors?sig=HUSH",
    artifact="safetensors.torch.save_file",
    licence="Apache-2.0",
)
OWN = UsedModel("kind", "/data/0 own.ckpt", "def", "classification", ("Alive", "half dead"))


def scene(name: str, bounds=(-111, 44, -110, 45), time=NOW, crs="EPSG:32612") -> Scene:
    footprint = None if bounds is None else shapely.box(*bounds)
    return Scene(name, f"/{name}.tif", name, datetime=time, footprint=footprint, crs=crs)


def record(of: Scene, **fields) -> SceneRecord:
    usual = {
        "status": "succeeded",
        "version": "v1",
        "fingerprint": "f1",
        "counts": {},
        "timings": {},
        "data": f"data/{of.id}-v1.parquet",
        "rows": 7,
        "created": NOW,
        "data_size": 99,
        "data_checksum": "1220ab",
        "columns": COLUMNS,
        "data_crs": "EPSG:4326",
    }
    return SceneRecord(scene=of, **(usual | fields))


def write(storage, **fields) -> dict:
    usual = {
        "collection_id": "trees",
        "description": "Trees",
        "fingerprint": "f1",
        "job": {},
        "columns": [(name, kind, "text") for name, kind in COLUMNS],
        "models": {"detector": "abc"},
        "used": (TREE, OWN),
        "software": {"geosweep": "0.1.0", "torch": "2.15.0+cu130"},
        "lineage": "Windows of 400 pixels.",
        "labels": {"label": ["Tree"]},
    }
    write_collection(storage, **(usual | fields))
    collection = read_collection(storage)
    assert collection is not None
    return collection


def as_item(rec: SceneRecord) -> pystac.Item:
    return pystac.Item.from_dict(json.loads(json.dumps(to_item(rec, collection_id="c"))))


@pytest.mark.parametrize(
    "rec",
    [
        record(scene("s")),
        record(scene("s"), data_crs=None),
        record(scene("s"), data_crs="PROJCRS[" + "x" * 80 + "]"),
        record(scene("s"), columns=(), data_crs=None, data_checksum=None),
    ],
)
def test_what_an_item_says_of_its_file_comes_back(rec):
    assert from_item(json.loads(json.dumps(to_item(rec, collection_id="c")))) == rec


def test_an_item_describes_its_file_by_extensions():
    item = as_item(record(scene("s")))
    file = FileExtension.ext(item.assets["data"])
    assert (file.size, file.checksum) == (99, "1220ab")
    table = TableExtension.ext(item)
    assert [(column.name, column.col_type) for column in table.columns] == list(COLUMNS)
    assert (table.primary_geometry, table.row_count) == ("geometry", 7)
    assert ProjectionExtension.ext(item).code == "EPSG:32612"
    assert ProjectionExtension.ext(item.assets["data"]).code == "EPSG:4326"


def test_rows_in_pixels_have_no_crs_rather_than_the_rasters():
    data = to_item(record(scene("s"), data_crs=None), collection_id="c")["assets"]["data"]
    assert data["proj:code"] is None


def test_items_of_older_outputs_claim_nothing_that_is_not_known():
    old = record(scene("s"), columns=(), data_crs=None, data_size=None, data_checksum=None)
    item = to_item(old, collection_id="c")
    assert not any("table" in uri or "/file/" in uri for uri in item["stac_extensions"])
    assert set(item["assets"]["data"]) == {"href", "title", "type", "roles"}
    assert from_item(item) == old


def test_a_multihash_is_of_sha_256(tmp_path):
    (tmp_path / "x").write_bytes(b"rows")
    assert multihash(tmp_path / "x") == "1220" + hashlib.sha256(b"rows").hexdigest()


def test_the_collection_describes_its_models(tmp_path):
    document = write(open_storage(tmp_path))
    assert "HUSH" not in json.dumps(document)
    collection = pystac.Collection.from_dict(document)
    mlm = MLMExtension.ext(collection)
    name = document["mlm:name"]
    assert name == "geosweep-tree with model-0-own.ckpt"
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", name)
    assert mlm.tasks == [TaskType.OBJECT_DETECTION, TaskType.CLASSIFICATION]
    assert (mlm.framework, mlm.framework_version) == ("PyTorch", "2.15.0+cu130")
    assert [x.name for x in mlm.input] == [x.name for x in mlm.output] == ["detector", "kind"]
    assert mlm.input[0].input.shape == [-1, 3, 400, 400]
    assert mlm.output[1].result.shape == [-1, 2]
    assert [x.description for x in mlm.output[1].classes] == ["Alive", "half dead"]
    assert mlm.pretrained_source is None and "mlm:pretrained_source" not in document

    asset = collection.assets["model-detector"]
    assert AssetGeneralMLMExtension.ext(asset).artifact_type == "safetensors.torch.save_file"
    assert BaseVersionExtension.ext(asset).version == "abc"
    assert asset.href == "https://h/tree.safetensors"
    assert "model-kind" not in collection.assets  # nobody knows where its file is
    for asset in document["assets"].values():
        assert ("mlm:artifact_type" in asset) == ("mlm:model" in asset["roles"])
        assert not {"mlm:name", "mlm:input", "mlm:output", "mlm:hyperparameters"} & set(asset)
    assert all(isinstance(summary, dict) for summary in document["summaries"].values())


def test_the_collection_says_what_it_is_made_by(tmp_path):
    document = write(open_storage(tmp_path))
    collection = pystac.Collection.from_dict(document)
    assert VersionExtension.ext(collection).version == "f1"
    assert TableExtension.ext(collection).columns[1].name == "geometry"
    (provider,) = document["providers"]
    assert provider["roles"] == ["processor"]
    assert provider["processing:lineage"] == "Windows of 400 pixels."
    assert provider["processing:software"]["geosweep"] == "0.1.0"
    assert collection.summaries.get_schema("label")["enum"] == ["Tree"]
    declared = {uri.split("/")[3] for uri in document["stac_extensions"]}
    assert declared == {"projection", "processing", "version", "table", "mlm"}


def test_a_collection_without_models_in_full_is_as_valid(tmp_path):
    document = write(open_storage(tmp_path), used=(), labels=None, software=None, lineage=None)
    assert not [key for key in document if key.startswith("mlm:")]
    pystac.Collection.from_dict(document)


def committed(tmp_path: Path, scenes: list[Scene]) -> dict:
    storage = open_storage(tmp_path)
    write(storage)
    records = Records(storage)
    for one in scenes:
        records.commit(record(one), replace=False)
    write_snapshot(storage)
    collection = read_collection(storage)
    assert collection is not None
    return collection


def test_the_extent_is_that_of_the_items(tmp_path):
    later = datetime(2027, 1, 1, tzinfo=UTC)
    scenes = [
        scene("a", (-111, 44, -110, 45)),
        scene("b", (5, -10, 6, -9), later, "EPSG:32631"),
        scene("c", None, None, None),
    ]
    collection = committed(tmp_path, scenes)
    assert collection["extent"]["spatial"]["bbox"] == [[-111, -10, 6, 45]]
    assert collection["extent"]["temporal"]["interval"] == [
        ["2026-11-21T05:00:00Z", "2027-01-01T00:00:00Z"]
    ]
    assert collection["summaries"]["proj:code"]["enum"] == ["EPSG:32612", "EPSG:32631"]
    assert collection["summaries"]["label"]["enum"] == ["Tree"]
    pystac.validation.validate_dict(collection | {"stac_extensions": []})


@pytest.mark.parametrize(
    ("boxes", "bbox"),
    [
        ([(178, 1, 179, 2), (-179, 1, -178, 2)], [178, 1, -178, 2]),
        ([(-179, 1, -170, 2)], [-179, 1, -170, 2]),
        ([(-1, 1, 1, 2), (170, 1, 171, 2)], [-1, 1, 171, 2]),
        ([(-180, 1, 180, 2)], [-180, 1, 180, 2]),
        ([], [-180, -90, 180, 90]),
    ],
)
def test_an_extent_may_lie_across_the_antimeridian(tmp_path, boxes, bbox):
    scenes = [scene(f"s{number}", box) for number, box in enumerate(boxes)]
    assert committed(tmp_path, scenes)["extent"]["spatial"]["bbox"] == [bbox]


def test_an_item_across_the_antimeridian_is_as_wide_as_it_is():
    extent, collection = Extent(), {}
    item = {"bbox": [179, 0, -179, 1], "properties": {}}
    other = {"bbox": [170, 0, 171, 1], "properties": {}}
    assert list(extent.watch([item, other])) == [item, other]
    extent.describe(collection)
    assert collection["extent"]["spatial"]["bbox"] == [[170, 0, -179, 1]]


def test_the_next_run_keeps_the_extent_until_it_knows_better(tmp_path):
    after = committed(tmp_path, [scene("a")])
    storage = open_storage(tmp_path)
    assert write(storage) == after
    Records(storage).commit(
        record(dataclasses.replace(scene("b"), footprint=shapely.box(0, 0, 1, 1))), replace=False
    )
    write_snapshot(storage)
    again = read_collection(storage)
    assert again is not None and again["extent"]["spatial"]["bbox"] == [[-111, 0, 1, 45]]


def test_a_snapshot_of_many_batches_joins_what_items_say(tmp_path, monkeypatch):
    monkeypatch.setattr(geoparquet, "_BATCH", 2)
    monkeypatch.setattr(geoparquet, "_BATCHES_OF_GROUP", 2)
    box = {"data_crs": None, "timings": {"read": 1}}
    old = {"columns": (), "data_checksum": None, "data_size": None, "data_crs": None}
    failed = {"status": "failed", "data": None, "rows": 0, "error": "gone"}
    records = [
        record(scene("s0", None, None, None), **failed, **old),
        record(scene("s1"), **old),
        *(record(scene(f"s{number}"), timings={"read": 0.5}) for number in range(2, 8)),
        record(scene("s8", (1, 1, 2, 2)), **box),
    ]
    items = [json.loads(json.dumps(to_item(rec, collection_id="c"))) for rec in records]
    path = tmp_path / "items.parquet"
    assert geoparquet.write_items(iter(items), path) == 9
    assert pq.read_metadata(path).num_row_groups == 3
    assert [from_item(item) for item in geoparquet.read_items(path)] == records
    geo = json.loads(pq.read_schema(path).metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
