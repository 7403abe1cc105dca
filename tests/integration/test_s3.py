"""Imagery, catalogs and outputs on a real S3."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import obstore
import pytest
import rasterio
import yaml
from typer.testing import CliRunner

from geosweep.catalog import Records, SourceError, open_source, open_storage
from geosweep.catalog.lease import lease
from geosweep.catalog.objectstore import connect
from geosweep.pipeline import read_output, run, update
from geosweep.pipeline.cli import app
from tests.s3server import PUBLIC, race
from tests.scenes import assert_sums, job_over, painted_scene
from tests.stacservers import free_port

REPO = Path(__file__).parents[2]
SCENES = 4
CLAIMED = 2


@pytest.fixture(scope="module", autouse=True)
def owner(s3):
    """All tests are the owner of the server's keys, and know of no other server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def bucket(s3):
    return s3.make_bucket("geosweep")


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    """Painted scenes on this machine's disk."""
    folder = tmp_path_factory.mktemp("imagery")
    return [painted_scene(folder, number) for number in range(SCENES)]


@pytest.fixture(scope="module")
def imagery(bucket, rasters):
    """The same scenes in the bucket: the URL of their folder."""
    storage = open_storage(f"{bucket}/imagery")
    for path in rasters:
        storage.put_file(path.name, path)
    storage.put("readme.txt", b"not a raster")
    return f"{bucket}/imagery/"


@pytest.fixture(scope="module")
def local_rows(rasters, tmp_path_factory):
    """What a run on this machine's disk finds, without the rasters' paths."""
    result = run(
        job_over(rasters, tmp_path_factory.mktemp("local") / "out"), engine="local", progress=False
    )
    assert result.counts["detections"] > 50
    return rows_of(result.to_geopandas())


@pytest.fixture(scope="module")
def output(bucket, imagery):
    """A finished run, in the bucket and over the bucket's imagery."""
    result = run(job_over([imagery], f"{bucket}/out"), engine="local", progress=False)
    assert_sums(result.counts)
    return f"{bucket}/out"


def rows_of(frame):
    return (
        frame.drop(columns="image_path").sort_values("detection_id").reset_index(drop=True).to_wkb()
    )


def geosweep(*arguments: str) -> tuple[int, str]:
    """Exit code and terminal of a command, in this process."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
    return done.exit_code, done.output


def test_a_run_in_the_bucket_finds_what_a_run_on_disk_finds(output, local_rows):
    found = read_output(output)
    assert set(found.image_path) == {f"s3://geosweep/imagery/scene{n}.tif" for n in range(SCENES)}
    assert rows_of(found).equals(local_rows)


def test_commands_that_read_outputs_read_them_in_the_bucket(output, tmp_path):
    code, said = geosweep("catalog", "validate", "--offline", output)
    assert code == 0, said
    code, said = geosweep("density", output, "--cell", "5", "-o", str(tmp_path / "density.tif"))
    assert code == 0, said
    with rasterio.open(tmp_path / "density.tif") as raster:
        assert raster.read(1).sum() == len(read_output(output))
    code, said = geosweep("map", output, "-o", str(tmp_path / "map.html"))
    assert code == 0, said
    assert "data:image/" in (tmp_path / "map.html").read_text(), "the imagery was not read"


@pytest.mark.ray
def test_a_killed_run_is_finished_by_two_at_once(bucket, imagery, local_rows, tmp_path):
    """The first ends by SIGKILL. A Ray cluster goes on, and then this process beside it."""
    out = f"{bucket}/resumed"
    job = job_over([imagery], out, detector="slow")
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))
    command = [sys.executable, "-m", "geosweep.pipeline", "run", str(file), "--engine"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    storage = open_storage(out)
    log = tmp_path / "log"

    def start(engine: str, commits: int) -> subprocess.Popen:
        """Start a run; return when so many scenes are committed."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, engine], stdout=output, stderr=output, env=environment
            )
        while len(list(storage.list("items"))) < commits:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        return process

    first = start("local", commits=1)
    first.kill()
    first.wait()
    before = {key: storage.get(key) for key in storage.list("items")}
    assert not storage.exists("run.json")

    second = start("ray", commits=len(before) + 1)
    result = run(job, engine="local", progress=False)
    assert second.wait(timeout=300) == 0, log.read_text()
    assert {key: storage.get(key) for key in before} == before
    records = list(Records(storage).all())
    assert sorted(record.scene.id for record in records) == [f"scene{n}" for n in range(SCENES)]
    assert list(storage.list("data")) == sorted(record.data for record in records)
    assert_sums(result.counts)
    assert_sums(json.loads(storage.get("run.json"))["counts"])
    # The ids of rows have the detector's name in them, and the slow one has another.
    found, expected = read_output(out), local_rows
    assert len(set(found.detection_id)) == len(found)
    shared = ["scene_id", "xmin", "ymin", "xmax", "ymax", "label", "score"]
    found, expected = (frame[shared].sort_values(shared) for frame in (found, expected))
    assert found.to_numpy().tolist() == expected.to_numpy().tolist()


def test_updates_follow_what_changes_in_the_bucket(bucket, rasters):
    storage, out = open_storage(f"{bucket}/changing"), f"{bucket}/changed"
    storage.put_file("deep/a.tif", rasters[0])
    storage.put_file("b.tif", rasters[1])
    storage.put_file("c.tif", rasters[3])
    job = job_over([f"{bucket}/changing/"], out)
    kinds = ("new", "changed", "removed", "unchanged", "withdrawn")

    def passed(**options: bool) -> list[int]:
        result = update(job, engine="local", progress=False, **options)
        assert result.exit_code == 0
        frame = read_output(out)
        assert len(frame) == len(set(frame.detection_id)) == result.counts["detections"]
        return [result.counts[kind] for kind in kinds]

    assert passed() == [3, 0, 0, 0, 0]
    assert passed() == [0, 0, 0, 3, 0]
    storage.put_file("b.tif", rasters[2])
    storage.delete("c.tif")
    assert passed(prune=True) == [0, 1, 1, 1, 1]
    code, said = geosweep("catalog", "compact", out)
    assert code == 0, said
    assert len(list(open_storage(out).list("data"))) == 1
    storage.put_file("c.tif", rasters[3])
    assert passed() == [1, 0, 0, 2, 0]
    code, said = geosweep("catalog", "validate", "--offline", out)
    assert code == 0, said


def test_folders_are_listed_to_the_bottom_and_in_order(bucket, rasters):
    storage = open_storage(f"{bucket}/folders")
    for key in ("b.tif", "a/c.TIF", "a b.tiff"):
        storage.put_file(key, rasters[0])
    for key in (".hidden.tif", ".hidden/x.tif", "a/readme.md", "b.tif.aux.xml"):
        storage.put(key, b"x")
    storage.put("empty/readme.md", b"x")
    scenes = list(open_source(f"{bucket}/folders/"))
    assert [scene.href.removeprefix(f"{bucket}/folders/") for scene in scenes] == [
        "a b.tiff",
        "a/c.TIF",
        "b.tif",
    ]
    assert [scene.error for scene in scenes] == [None] * 3
    assert len({scene.checksum for scene in scenes}) == 1  # one content, one ETag
    assert None not in {scene.checksum for scene in scenes}
    (alone,) = open_source(f"{bucket}/folders/b.tif")
    assert alone.source_version == scenes[2].source_version
    assert [scene.item_id for scene in open_source(f"{bucket}/folders")] == ["a b", "c", "b"]
    both = open_source([f"{bucket}/folders/a/", f"{bucket}/folders/"])
    assert [scene.item_id for scene in both] == ["c", "a b", "b"]
    assert both.duplicates == 1
    with pytest.raises(SourceError, match="s3://geosweep/folders/empty/ holds no raster"):
        open_source(f"{bucket}/folders/empty/")
    (scene,) = open_source(f"{bucket}/folders/nothing")  # not a folder, so a raster that is missing
    assert scene.error is not None


def test_catalogs_in_the_bucket_are_sources(bucket, imagery, rasters):
    plain = list(open_source(imagery))
    for name in ("items.parquet", "items.json"):
        target = f"{bucket}/catalogs/{name}"
        code, said = geosweep("catalog", "create", imagery, "-o", target, "--datetime", "2022-07")
        assert code == 0, said
        scenes = list(open_source(target))
        assert [(s.id, s.href, s.transform, s.shape) for s in scenes] == [
            (s.id, s.href, s.transform, s.shape) for s in plain
        ]
    storage = open_storage(f"{bucket}/catalogs")
    features = json.loads(storage.get("items.json"))["features"]
    for item in features:  # a static catalog beside the imagery, with relative links
        item["assets"]["image"]["href"] = f"../../imagery/{item['id']}.tif"
        storage.put(f"static/{item['id']}.json", json.dumps(item).encode())
    links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in features]
    root = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "c",
        "description": "",
        "links": links,
    }
    storage.put("static/catalog.json", json.dumps(root).encode())
    scenes = list(open_source(f"{bucket}/catalogs/static/catalog.json"))
    assert sorted(scene.href for scene in scenes) == [scene.href for scene in plain]


def test_public_buckets_need_no_credentials(s3, rasters, monkeypatch, tmp_path):
    storage = open_storage(s3.make_bucket(PUBLIC))
    storage.put_file("a/b.tif", rasters[0])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    job = job_over([f"s3://{PUBLIC}/a/"], tmp_path / "out")
    assert run(job, engine="local", progress=False).counts["succeeded"] == 1


def test_of_many_threads_and_processes_exactly_one_wins(bucket):
    # Not forked: obstore's threads would be missing in the child.
    context = multiprocessing.get_context("spawn")
    url, wins, start = f"{bucket}/race", context.Queue(), context.Barrier(4)
    workers = [context.Process(target=race, args=(url, n, CLAIMED, start, wins)) for n in range(2)]
    for process in workers:
        process.start()
    won = dict(wins.get(timeout=200) for _ in range(CLAIMED))
    for process in workers:
        process.join(60)
        assert process.exitcode == 0
    assert wins.empty()
    assert sorted(won) == list(range(CLAIMED))
    storage = open_storage(url)
    for number, name in won.items():
        assert storage.get(f"{number}.json") == name.encode() * 50_000


def test_one_pass_at_a_time_holds_the_lease(bucket):
    url = f"{bucket}/leased"
    with lease(open_storage(url), "update", beat_s=0.1) as first:
        with lease(open_storage(url), "compact", beat_s=0.1) as second:
            assert first and not second
            assert "update" in second.holder
        assert first
    with lease(open_storage(url), "compact") as third:
        assert third


def test_more_keys_than_a_page_are_listed_in_order(bucket):
    storage = open_storage(f"{bucket}/many")
    keys = [f"items/{number:05d}.json" for number in range(1200)]
    with ThreadPoolExecutor(16) as threads:
        list(
            threads.map(
                lambda key: storage.put(key, b"{}"), np.random.default_rng(0).permutation(keys)
            )
        )
    storage.put("items-other/x.json", b"{}")
    assert list(storage.list("items")) == keys
    assert list(storage.list("items", suffix="9.json")) == keys[9::10]


def test_large_files_go_up_in_parts(bucket, tmp_path):
    content = np.random.default_rng(0).bytes(12 * 2**20)
    (tmp_path / "file").write_bytes(content)
    open_storage(f"{bucket}/large").put_file("file", tmp_path / "file")
    tag = obstore.head(connect(f"{bucket}/large"), "file")["e_tag"]
    assert tag.strip('"').endswith("-3")
    assert open_storage(f"{bucket}/large").get("file") == content


@pytest.mark.parametrize(
    ("where", "environment", "words"),
    [
        ("geosweep/denied", {"AWS_SECRET_ACCESS_KEY": "hushhush-wrong"}, "access denied"),
        ("geosweep/denied", {"AWS_ACCESS_KEY_ID": "hushhush-nobody"}, "access denied"),
        ("geosweep/denied", "reader", "access denied"),
        ("no-such-bucket/out", {}, "there is no such bucket"),
        ("geosweep/out", "nobody", "does not answer"),
    ],
)
def test_an_output_out_of_reach_is_exit_code_3_and_one_sentence(
    bucket, s3, rasters, monkeypatch, where, environment, words
):
    if environment == "reader":
        environment = s3.environment("reader")
    if environment == "nobody":
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, said = geosweep(
        "detect", str(rasters[0]), "-o", f"s3://{where}", "--detector", "tests.detectors:paint"
    )
    assert code == 3, said
    # What is said before, such as what is planned, is no error.
    (error,) = [line for line in said.splitlines() if line.startswith("geosweep:")]
    assert said.rstrip().endswith(error)
    assert words in error and f"s3://{where}" in error
    assert "hush" not in said


@pytest.mark.parametrize(
    ("url", "environment", "words"),
    [
        ("s3://geosweep/imagery/", {"AWS_SECRET_ACCESS_KEY": "hushhush-wrong"}, "access denied"),
        ("s3://no-such-bucket/imagery/", {}, "there is no such bucket"),
        ("s3://geosweep/imagery/", {"AWS_ENDPOINT_URL": "localhost:9"}, "must be a URL"),
    ],
)
def test_a_folder_out_of_reach_is_one_sentence(
    imagery, tmp_path, monkeypatch, url, environment, words
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, said = geosweep(
        "detect", url, "-o", str(tmp_path / "out"), "--detector", "tests.detectors:paint"
    )
    assert code == 2, said
    assert words in said and "hush" not in said
    assert len(said.strip().splitlines()) == 1


def test_a_raster_out_of_reach_is_a_failed_scene(imagery, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush-wrong")
    job = job_over([f"{imagery}scene0.tif"], tmp_path / "out")
    result = run(job, engine="local", progress=False)
    (failure,) = result.failures
    assert result.exit_code == 1
    assert "s3://geosweep/imagery/scene0.tif can't be opened" in failure.error
    assert "hush" not in failure.error
