"""Results on a STAC API: stac-fastapi on pgstac, with its transaction extension."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import pandas as pd
import pyarrow.parquet as pq
import pystac_client
import pytest
import shapely
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.table import TableExtension
from typer.testing import CliRunner

from geosweep.catalog import (
    OutputError,
    Records,
    Scene,
    SceneRecord,
    StorageError,
    open_storage,
    publish_output,
    read_collection,
    write_collection,
    write_snapshot,
)
from geosweep.catalog.stacitems import multihash
from geosweep.pipeline import run
from geosweep.pipeline.cli import app
from geosweep.pipeline.compaction import compact
from tests.outputs import make_output
from tests.scenes import job_over, painted_scene
from tests.stacservers import collection, post, proxy_server, rustac_server
from tests.unit.catalog.helpers import make_item

NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)


@pytest.fixture
def api(proxy):
    proxy.forget()
    return proxy


def record(number: int, **fields) -> SceneRecord:
    scene = Scene(
        f"s{number}",
        f"https://user:HUSHHUSH@h/s{number}.tif?sig=HUSHHUSH",
        f"s{number}",
        datetime=NOW,
        footprint=shapely.box(number % 100, 0, number % 100 + 0.5, 1),
    )
    usual = {
        "status": "succeeded",
        "version": "v1",
        "fingerprint": "f1",
        "counts": {},
        "timings": {},
        "data": f"data/year=2026/s{number}-v1.parquet",
        "rows": 7,
        "created": NOW,
    }
    return SceneRecord(scene=scene, **(usual | fields))


def output(folder: Path, name: str, count: int):
    storage = open_storage(folder / "out")
    write_collection(
        storage,
        collection_id=name,
        description="Trees",
        fingerprint="f1",
        job={},
        columns=[("geometry", "binary", "box")],
        models={},
    )
    for number in range(count):
        Records(storage).commit(record(number), replace=False)
    write_snapshot(storage)
    return storage


def publish(storage, api, **options):
    found = read_collection(storage)
    assert found is not None
    return publish_output(storage, found, api.url, **({"backoff_s": 0.001} | options))


def sent(api) -> list[str]:
    return [f"{method} {path}" for method, path, _ in api.writes]


def served(api, name: str) -> dict[str, pystac_client.client.pystac.Item]:
    client = pystac_client.Client.open(api.target)
    return {item.id: item for item in client.search(collections=[name]).items()}


def test_published_results_are_found_and_read(tmp_path, api):
    folder = make_output(tmp_path, name="pub-read")
    report = publish(open_storage(folder), api)
    assert (report.collection, report.created, report.left_out) == ("created", 2, 1)
    items = served(api, "pub-read")
    assert set(items) == {"A", "B"}
    rows = [geopandas.read_parquet(item.assets["data"].href) for item in items.values()]
    assert sum(map(len, rows)) == 40
    client = pystac_client.Client.open(api.target)
    near = client.search(collections=["pub-read"], bbox=rows[0].total_bounds.tolist())
    assert "A" in {item.id for item in near.items()}
    found = client.get_collection("pub-read")
    assert found.assets["items"].href == str(folder / "items.parquet")
    assert found.extra_fields["table:columns"][0]["name"] == "score"


def test_what_is_there_is_not_sent_again(tmp_path, api):
    storage = output(tmp_path, "pub-again", 250)
    assert publish(storage, api).created == 250
    assert sent(api) == ["POST /collections", *["POST /collections/pub-again/items"] * 3]
    assert "HUSH" not in json.dumps(api.writes)
    api.forget()
    again = publish(storage, api)
    assert (again.collection, again.unchanged, again.created) == ("unchanged", 250, 0)
    assert not api.writes and len(api.paths) == 3  # landing page, collection, one search

    records = Records(storage)
    records.commit(record(3, version="v2", data="data/s3-v2.parquet"), replace=True)
    records.commit(record(300), replace=False)
    storage.delete("items/s5.json")
    changed = publish(storage, api)
    assert (changed.updated, changed.created, changed.deleted) == (1, 1, 0)
    assert sent(api) == [
        "PUT /collections/pub-again/items/s3",
        "POST /collections/pub-again/items",
    ]
    items = served(api, "pub-again")
    assert items["s3"].assets["data"].href == storage.uri("data/s3-v2.parquet")
    assert "s5" in items
    api.forget()
    dry = publish(storage, api, prune=True, dry_run=True)
    assert (dry.unchanged, dry.deleted) == (250, 1) and not api.writes
    assert publish(storage, api, prune=True).deleted == 1
    assert sent(api) == ["DELETE /collections/pub-again/items/s5"]
    assert set(served(api, "pub-again")) == {f"s{n}" for n in (*range(250), 300)} - {"s5"}


def test_publishing_goes_on_where_it_was_cut_off(tmp_path, api):
    storage = output(tmp_path, "pub-cut", 110)
    # The collection and 100 items arrive, then the server is away for longer than we wait.
    api.write_failures = [(200, {}), (200, {}), *[(503, {})] * 6]
    with pytest.raises(StorageError, match=r"can't answer \(HTTP 503\).*same command goes on"):
        publish(storage, api)
    assert len(served(api, "pub-cut")) == 100
    api.forget()
    # The answer to the rest gets lost: the items are there when they are sent again.
    api.write_failures = [(None, {})]
    report = publish(storage, api)
    assert (report.unchanged, report.created, report.refused) == (100, 10, 0)
    assert (
        sent(api).count("POST /collections/pub-cut/items") == 12
    )  # twice all, then each by itself
    api.forget()
    assert publish(storage, api).unchanged == 110 and not api.writes
    assert len(served(api, "pub-cut")) == 110


def test_a_scene_that_failed_takes_its_item_away(tmp_path, api):
    storage = output(tmp_path, "pub-fail", 2)
    publish(storage, api)
    bad = record(1, status="failed", version="v2", data=None, rows=0, error="gone")
    Records(storage).commit(bad, replace=True)
    report = publish(storage, api)
    assert (report.deleted, report.left_out, report.unchanged) == (1, 1, 1)
    assert set(served(api, "pub-fail")) == {"s0"}
    assert publish(storage, api, failed=True).created == 1
    assert served(api, "pub-fail")["s1"].properties["geosweep:error"] == "gone"


def test_what_the_server_does_not_take_is_reported_and_the_rest_goes_on(tmp_path, api):
    storage = output(tmp_path, "pub-refuse", 3)
    placeless = dataclasses.replace(record(7).scene, footprint=None)
    Records(storage).commit(dataclasses.replace(record(7), scene=placeless), replace=False)
    report = publish(storage, api)
    assert (report.created, report.refused) == (3, 1)
    ((name, reason),) = report.problems
    assert name == "s7" and "geometry" in reason


def test_hrefs_are_those_that_others_use(tmp_path, api):
    storage = output(tmp_path, "pub-href", 2)
    shared = record(1, data="data/part-0011.parquet")  # as after compaction
    for number in (0, 1):
        Records(storage).commit(
            dataclasses.replace(shared, scene=record(number).scene), replace=True
        )
    report = publish(storage, api, href="https://tiles.example/my out/", collection_id="pub-other")
    assert report.created == 2
    items = served(api, "pub-other")
    assert {item.assets["data"].href for item in items.values()} == {
        "https://tiles.example/my out/data/part-0011.parquet"
    }
    assert items["s0"].get_single_link("derived_from").href == "https://h/s0.tif"
    assert items["s0"].collection_id == "pub-other"
    with pytest.raises(OutputError, match="holds credentials") as error:
        publish(storage, api, href="https://me:HUSHHUSH@h/out")
    assert "HUSH" not in str(error.value)
    with pytest.raises(OutputError, match="--href tiles/out is no URL"):
        publish(storage, api, href="tiles/out")


def test_a_run_compacted_and_gone_on_with_is_published_as_it_is(tmp_path, api):
    out = tmp_path / "out"
    rasters = [painted_scene(tmp_path, number) for number in range(3)]
    run(job_over(rasters[:2], out, name="pub-run"), engine="local", progress=False)
    storage = open_storage(out)
    assert publish(storage, api).created == 2
    found = served(api, "pub-run")
    assert {TableExtension.ext(item).row_count for item in found.values()} == {54}
    compact(storage, read_collection(storage))
    assert publish(storage, api).updated == 2
    run(job_over(rasters, out, name="pub-run"), engine="local", progress=False)
    report = publish(storage, api)
    assert (report.created, report.unchanged) == (1, 2)
    items = served(api, "pub-run")
    hrefs = {item.assets["data"].href for item in items.values()}
    assert len(items) == 3 and len(hrefs) == 2  # two scenes share a file
    rows = pd.concat(geopandas.read_parquet(href) for href in sorted(hrefs))
    for name, item in items.items():
        table = TableExtension.ext(item)
        assert (rows["scene_id"] == name).sum() == table.row_count
        data = Path(item.assets["data"].href)
        assert FileExtension.ext(item.assets["data"]).checksum == multihash(data)
        assert [column.name for column in table.columns] == pq.read_schema(data).names
    collection = pystac_client.Client.open(api.target).get_collection("pub-run")
    assert MLMExtension.ext(collection).output[0].name == "detector"
    west, south, east, north = rows.total_bounds
    box = collection.extent.spatial.bboxes[0]
    assert box[0] <= west and box[1] <= south and box[2] >= east and box[3] >= north


def test_a_collection_of_somebody_else_is_left_alone(tmp_path, api):
    post(f"{api.target}/collections", collection("pub-naip"))
    storage = output(tmp_path, "pub-naip", 1)
    with pytest.raises(OutputError, match=r"'pub-naip' that is not geosweep's.*--collection"):
        publish(storage, api, prune=True)
    assert not api.writes


def test_a_token_goes_to_the_api_and_into_no_message(tmp_path, api, monkeypatch):
    storage = output(tmp_path, "pub-token", 1)
    monkeypatch.setenv("GEOSWEEP_STAC_TOKEN", "HUSHHUSH")
    api.write_failures = [(403, {})]
    with pytest.raises(OutputError, match=r"HTTP 403.*GEOSWEEP_STAC_TOKEN") as error:
        publish(storage, api)
    assert "HUSH" not in str(error.value)
    assert {headers["Authorization"] for headers in api.headers} == {"Bearer HUSHHUSH"}


def test_apis_that_take_no_changes_say_so(tmp_path, api):
    storage = output(tmp_path, "pub-none", 1)
    item = make_item("i", "https://h/x.tif", collection="c")
    with proxy_server() as front, rustac_server([item], tmp_path, front.url) as url:
        front.target = url
        with pytest.raises(OutputError, match="takes no changes"):
            publish(storage, front)
    with pytest.raises(StorageError, match="can't be reached"):
        publish_output(storage, read_collection(storage), front.url, backoff_s=0.001)
    for url, reason in (
        ("ftp://me:HUSHHUSH@h/x", "ftp://h/x is not the URL of a STAC API"),
        (f"{api.target}/collections", "is not a STAC API: name its landing page"),
        (f"{api.target}/nothing", "is not a STAC API: name its landing page"),
    ):
        with pytest.raises(OutputError, match=reason):
            publish_output(storage, read_collection(storage), url, backoff_s=0.001)


def test_the_command_says_what_it_did(tmp_path, api):
    output(tmp_path, "pub-cli", 2)
    command = ["catalog", "publish", str(tmp_path / "out"), "--to", api.url]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "created" in shown.output and "--href" in shown.output
    shown = CliRunner().invoke(app, [*command, "--href", "s3://b/out", "--dry-run"])
    assert shown.exit_code == 0 and "dry run" in shown.output and "--href" not in shown.output
    assert len(api.writes) == 2
    shown = CliRunner().invoke(app, [*command[:-1], "http://127.0.0.1:9"])
    assert shown.exit_code == 3
