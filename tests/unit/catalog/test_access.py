"""What STAC says of buckets and of alternate hrefs, up to the requests that a server sees."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from geosweep.catalog import Access, SceneRecord, SideAsset, from_item, open_source, to_item
from geosweep.catalog.errors import SourceError
from geosweep.catalog.gdal import gdal_env
from geosweep.pipeline._imagery import read_preview
from geosweep.pipeline.raster import RasterSource
from tests.servers import RangeServer, range_server
from tests.unit.catalog.helpers import feature_collection, make_item, make_raster, write_json

PAID = Access("us-west-2", requester_pays=True)
VERSION_2 = {
    "storage:schemes": {
        "here": {"type": "aws-s3", "region": "us-west-2", "requester_pays": True},
        "there": {"type": "aws-s3", "region": "eu-central-1"},
    }
}
S3 = "s3://bucket/a.tif"


def scene_of(tmp_path, item, **spec):
    path = write_json(tmp_path / "items.json", feature_collection(item))
    return next(iter(open_source({"stac": str(path), **spec}, side_assets=spec.pop("side", ()))))


@pytest.mark.parametrize(
    ("asset", "properties", "expected"),
    [
        ({}, {}, Access()),
        ({"storage:region": "us-west-2", "storage:requester_pays": True}, {}, PAID),
        ({}, {"storage:region": "us-west-2", "storage:requester_pays": True}, PAID),
        (
            {"storage:requester_pays": False},
            {"storage:region": "us-west-2", "storage:requester_pays": True},
            Access("us-west-2"),
        ),
        ({"storage:refs": ["here"]}, VERSION_2, PAID),
        ({"storage:refs": ["there"]}, VERSION_2, Access("eu-central-1")),
        ({"storage:refs": ["nowhere"]}, VERSION_2, Access()),
        ({}, VERSION_2, Access()),
    ],
)
def test_both_versions_of_the_storage_extension(tmp_path, asset, properties, expected):
    item = make_item("a", S3, updated="2022-01-01T00:00:00Z", **asset)
    item["properties"] |= properties
    assert scene_of(tmp_path, item).access == expected


def test_only_buckets_of_s3_have_such_ways(tmp_path):
    said = {"storage:region": "westeurope", "updated": "2022-01-01T00:00:00Z"}
    assert scene_of(tmp_path, make_item("a", "https://h.invalid/a.tif", **said)).access == Access()


def test_other_assets_have_their_own(tmp_path):
    item = make_item("a", S3, updated="2022-01-01T00:00:00Z", **{"storage:region": "eu-west-1"})
    item["assets"]["chm"] = {
        "href": "s3://paid/chm.tif",
        "storage:requester_pays": True,
        "updated": "2022-01-01T00:00:00Z",
    }
    path = write_json(tmp_path / "items.json", item)
    scene = next(iter(open_source({"stac": str(path), "asset": "image"}, side_assets=["chm"])))
    assert scene.access == Access("eu-west-1")
    assert scene.assets["chm"].access == Access(None, requester_pays=True)


def test_the_job_may_agree_to_pay_for_all_of_s3(tmp_path):
    sign = "s3-requester-pays"
    item = make_item("a", S3, updated="2022-01-01T00:00:00Z", **{"storage:region": "us-west-2"})
    assert scene_of(tmp_path, item, sign=sign).access == PAID
    local = make_item("a", str(make_raster(tmp_path / "a.tif")))
    assert scene_of(tmp_path, local, sign=sign).access == Access()


def test_a_record_knows_how_its_rasters_are_reached(tmp_path):
    item = make_item("a", S3, updated="2022-01-01T00:00:00Z")
    scene = scene_of(tmp_path, item)
    others = {"chm": SideAsset("s3://paid/chm.tif", access=PAID), "b": SideAsset("s3://b/b.tif")}
    scene = replace(scene, access=PAID, assets=others)
    record = SceneRecord(
        scene, "failed", "v", "f", {}, {}, None, 0, datetime(2026, 1, 1, tzinfo=UTC), "why"
    )
    stored = to_item(record, collection_id="c")
    source = stored["properties"]["geosweep:source"]
    assert (source["region"], source["requester_pays"]) == ("us-west-2", True)
    assert "region" not in source["assets"]["b"]
    back = from_item(stored).scene
    assert (back.access, back.assets) == (PAID, others)


ALTERNATES = {
    "alternate": {
        "s3": {"href": "s3://bucket/far.tif", "storage:refs": ["here"]},
        "ftp": {"href": "ftp://h.invalid/a.tif"},
    },
    "storage:refs": ["there"],
}


def test_an_alternate_brings_its_own_bucket(tmp_path):
    item = make_item("a", S3, updated="2022-01-01T00:00:00Z", **ALTERNATES)
    item["properties"] |= VERSION_2
    main = scene_of(tmp_path, item)
    assert (main.href, main.access) == (S3, Access("eu-central-1"))
    other = scene_of(tmp_path, item, alternate="s3")
    assert (other.href, other.access) == ("s3://bucket/far.tif", PAID)
    assert other.updated == main.updated


def test_an_item_without_the_alternate_names_those_it_has(tmp_path):
    item = make_item("a", S3, updated="2022-01-01T00:00:00Z", **ALTERNATES)
    with pytest.raises(SourceError, match="has no alternate 'gs', it has s3, ftp: set") as caught:
        scene_of(tmp_path, item, alternate="gs")
    assert "\n" not in str(caught.value)
    # Once an item has been good, one that isn't is a scene that fails.
    bare = make_item("b", "s3://bucket/b.tif", updated="2022-01-01T00:00:00Z")
    path = write_json(tmp_path / "two.json", feature_collection(item, bare))
    good, bad = open_source({"stac": str(path), "alternate": "s3"})
    assert good.error is None
    assert "asset 'image' of item b has no alternate 's3', it has none" in bad.error


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A server that GDAL takes for S3; the bucket is a folder."""
    make_raster(tmp_path / "served" / "bucket" / "a.tif")
    with range_server(tmp_path / "served") as server:
        monkeypatch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
        monkeypatch.setenv("AWS_HTTPS", "NO")
        monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        yield server


def payers(server: RangeServer) -> set[str | None]:
    """Who agreed to pay, over all requests since the last call."""
    seen = {
        next((v for k, v in headers.items() if k.lower() == "x-amz-request-payer"), None)
        for headers in server.headers
    }
    server.headers.clear()
    return seen


def test_whoever_reads_agrees_to_pay_where_the_bucket_asks_for_it(bucket, tmp_path):
    item = make_item("a", S3, updated="2022", **{"storage:requester_pays": True})
    del item["properties"]["proj:shape"]  # so that planning has to look
    paid = scene_of(tmp_path, item)
    assert paid.error is None
    assert payers(bucket) == {"requester"}
    for access, seen in ((paid.access, {"requester"}), (Access(), {None})):
        with RasterSource(S3, access=access) as source:
            source.read(0, 0, 48, 64)
        assert payers(bucket) == seen


def test_pictures_are_paid_for_too(bucket):
    assert read_preview(S3, 64, access=PAID).pixels.any()
    assert payers(bucket) == {"requester"}
    bands = {name: SideAsset(S3, access=PAID) for name in ("red", "green")}
    assert read_preview("s3://bucket/none.tif", 64, bands=["red"], parts=bands).pixels.any()
    assert payers(bucket) == {"requester"}


def test_requests_are_signed_for_the_buckets_region(bucket, monkeypatch):
    monkeypatch.delenv("AWS_NO_SIGN_REQUEST")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    for access, region in ((PAID, "us-west-2"), (Access(), "eu-north-1")):
        bucket.headers.clear()
        with RasterSource(S3, access=access) as source:
            source.read(0, 0, 48, 64)
        assert bucket.headers
        assert all(f"/{region}/s3/" in headers["Authorization"] for headers in bucket.headers)


@pytest.mark.parametrize(("sign", "seen"), [("s3-requester-pays", "requester"), (None, None)])
def test_folders_are_listed_at_the_requesters_cost(bucket, monkeypatch, sign, seen):
    monkeypatch.delenv("AWS_NO_SIGN_REQUEST")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    # The server knows no listings, but it was asked for one.
    with pytest.raises(SourceError, match="s3://bucket/ can't be listed"):
        open_source({"rasters": "s3://bucket/", "sign": sign})
    assert any("list-type=2" in query for query in bucket.queries)
    assert payers(bucket) == {seen}


def test_other_hrefs_have_no_use_for_it():
    assert gdal_env("https://h.invalid/a.tif", PAID) == gdal_env("https://h.invalid/a.tif")
