"""Remote rasters that nobody dates are told from their successors by what their server says."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice

import pytest

from geosweep.catalog import Access, Scene, SideAsset, open_source
from geosweep.catalog.stamps import Stamps, remote_stamp
from geosweep.pipeline.raster import RasterSource
from tests.servers import range_server
from tests.stacservers import free_port
from tests.unit.catalog.helpers import feature_collection, make_item, make_raster, write_json

PAID = {"storage:region": "us-west-2", "storage:requester_pays": True}


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    make_raster(tmp_path / "served" / "a.tif")
    with range_server(tmp_path / "served") as server:
        yield server


def items(tmp_path, *found, **spec):
    path = write_json(tmp_path / "items.json", feature_collection(*found))
    return open_source({"stac": str(path), **spec})


def heads(server):
    return server.methods.count("HEAD")


def test_a_raster_replaced_in_place_is_another_version(server, tmp_path):
    href = f"{server}/a.tif"
    kinds = (
        lambda: next(iter(open_source(href))),
        lambda: next(iter(items(tmp_path, make_item("a", href)))),
    )
    before = [scene() for scene in kinds]
    assert [scene.source_version for scene in before] == [scene().source_version for scene in kinds]
    assert all(scene.checksum and scene.checksum.startswith('"') for scene in before)
    make_raster(tmp_path / "served" / "a.tif", size=(80, 96))
    after = [scene() for scene in kinds]
    for old, new in zip(before, after, strict=True):
        assert old.source_version != new.source_version
    # The header and the pixels are the new file's as well, in this same process.
    assert after[0].shape == (80, 96)
    with RasterSource(href) as source:
        assert source.full_size == (96, 80)


@pytest.mark.parametrize(
    "said", [{"updated": "2022-01-01T00:00:00Z"}, {"file:checksum": "1220" + "0" * 64}]
)
def test_what_the_source_dates_is_not_asked_for(server, tmp_path, said):
    found = [make_item(f"i{n}", f"{server}/a.tif", **said) for n in range(5)]
    assert len(list(items(tmp_path, *found))) == 5
    assert server.requests == 0


def test_without_etags_time_and_length_do(server, tmp_path):
    server.etags = False
    (scene,) = items(tmp_path, make_item("a", f"{server}/a.tif"))
    size = (tmp_path / "served" / "a.tif").stat().st_size
    assert scene.checksum.endswith(f" GMT {size}")
    server.dated = False
    assert remote_stamp(f"{server}/a.tif") is None


def test_each_file_of_a_scene_is_asked_for_once(server):
    href = f"{server}/a.tif"
    scene = Scene(
        id="a",
        href=href,
        item_id="a",
        assets={"chm": SideAsset(href), "old": SideAsset(href, updated="2022")},
        bands={"red": SideAsset(href), "green": SideAsset("/data/green.tif")},
    )
    (found,) = Stamps(None).complete([scene])
    assert found.checksum == found.assets["chm"].checksum == found.bands["red"].checksum
    assert found.checksum is not None
    assert found.assets["old"].checksum is None and found.bands["green"].checksum is None
    assert heads(server) == server.requests == 1
    assert replace(found, checksum=None).source_version != found.source_version


def test_servers_are_asked_side_by_side_and_scenes_stay_in_order(server, tmp_path):
    server.latency = 0.03
    found = [make_item(f"i{n:02}", f"{server}/a.tif?n={n}") for n in range(40)]
    scenes = list(items(tmp_path, *found))
    assert [scene.item_id for scene in scenes] == [f"i{n:02}" for n in range(40)]
    assert all(scene.checksum for scene in scenes)
    assert heads(server) == 40
    assert 1 < server.at_once <= 16


def test_a_stream_is_taken_only_so_far_ahead(server):
    taken = []

    def endless():
        for number in count():
            taken.append(number)
            yield Scene(id=str(number), href=f"{server}/a.tif", item_id="a")

    stream = Stamps(None).complete(endless())
    assert [scene.id for scene in islice(stream, 3)] == ["0", "1", "2"]
    assert len(taken) <= 100
    stream.close()  # type: ignore[attr-defined]


def test_scenes_outside_the_area_are_not_asked_for(server, tmp_path):
    found = [make_item(f"i{n}", f"{server}/a.tif", west=-110 + 10 * n) for n in range(8)]
    (scene,) = items(tmp_path, *found, bbox=[-99.9, 44, -99.5, 45])
    assert scene.item_id == "i1" and scene.checksum
    assert heads(server) == 1


def test_a_server_that_refuses_is_named_once(server, tmp_path, caplog):
    server.refuses_head = True
    found = [make_item(f"i{n}", f"{server}/a.tif?key=s3cret") for n in range(30)]
    scenes = list(items(tmp_path, *found))
    assert [scene.checksum for scene in scenes] == [None] * 30
    assert heads(server) < 30  # it is not asked for ever
    # Of a stream that another test closed, the last request may come to its end only now.
    (line,) = [m for m in caplog.messages if str(server) in m]
    assert line.startswith(f"{server} does not say which version of a raster it has (it answers")
    assert "HEAD with 405" in line and "s3cret" not in line


def test_a_server_that_is_gone_holds_nobody_up(tmp_path, caplog):
    gone = f"http://127.0.0.1:{free_port()}"
    scenes = list(items(tmp_path, *[make_item(f"i{n}", f"{gone}/a.tif") for n in range(40)]))
    assert [(scene.checksum, scene.error) for scene in scenes] == [(None, None)] * 40
    (line,) = [record.getMessage() for record in caplog.records if record.name == "geosweep"]
    assert f"{gone} does not say" in line and "Connection refused" in line


def test_missing_files_are_the_readers_business(server, tmp_path, caplog):
    scenes = items(
        tmp_path,
        *[make_item(f"gone{n}", f"{server}/gone{n}.tif") for n in range(5)],
        make_item("there", f"{server}/a.tif"),
    )
    *gone, there = scenes
    assert {scene.checksum for scene in gone} == {None}
    assert there.checksum
    assert not [record for record in caplog.records if record.name == "geosweep"]


def test_hrefs_are_signed_for_it(server, tmp_path):
    server.uses = 10_000
    found = make_item("a", f"{server}/a.tif")
    (scene,) = items(tmp_path, found, sign="tests.signers:from_server")
    assert scene.checksum and scene.href == f"{server}/a.tif"
    (other,) = items(tmp_path, found, sign="tests.signers:stale")
    assert other.checksum is None


def test_buckets_are_asked_as_they_want_to_be(tmp_path, monkeypatch):
    make_raster(tmp_path / "served" / "bucket" / "deep" / "a.tif")
    with range_server(tmp_path / "served") as server:
        monkeypatch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
        monkeypatch.setenv("AWS_HTTPS", "NO")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        item = make_item("a", "s3://bucket/deep/a.tif", **PAID)
        (scene,) = items(tmp_path, item)
        assert scene.access == Access("us-west-2", requester_pays=True)
        assert scene.checksum and scene.checksum.startswith('"')
        (headers,) = server.headers
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["x-amz-request-payer"] == "requester"
        assert "/us-west-2/s3/" in headers["authorization"]
        assert remote_stamp("/vsis3/bucket/deep/a.tif") == scene.checksum
        with pytest.raises(FileNotFoundError):
            remote_stamp("s3://bucket/deep/gone.tif")
