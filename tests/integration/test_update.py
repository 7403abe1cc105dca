"""`update`: what is new, changed, gone, cut off or at work already, over files of items."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from typer.testing import CliRunner

from geosweep.catalog import Records, read_collection, validate_output
from geosweep.catalog.errors import JobError, OutputError, SourceError, StorageError
from geosweep.catalog.lease import lease
from geosweep.pipeline import read_output, run, update
from geosweep.pipeline.cli import app
from geosweep.pipeline.compaction import compact
from geosweep.pipeline.outputs import open_output
from tests.servers import range_server
from tests.worlds import World

CHANGES = ("new", "changed", "removed", "unchanged", "withdrawn", "scenes_now")


def one_pass(world, **options) -> tuple[int, ...]:
    result = update(world.job, engine="local", progress=False, **options)
    return tuple(result.counts[name] for name in CHANGES)


def records(world) -> dict[str, Any]:
    return {record.scene.id: record for record in Records(world.storage).all()}


def assert_sound(world) -> None:
    collection = read_collection(world.storage)
    assert collection is not None
    assert validate_output(world.storage, collection, fetch_schemas=False).problems == []
    # What a pass keeps for itself is gone with it.
    assert list(world.storage.list(".geosweep")) == []


def assert_linked(world, name: str, versions: list[str]) -> None:
    """Whatever an item's versions link to is there, and they follow one another."""
    paths = [world.output / f"versions/{name}/{version}.json" for version in versions[:-1]]
    paths.append(world.output / f"items/{name}.json")
    for number, path in enumerate(paths):
        item = json.loads(path.read_text())
        assert item["properties"]["version"] == versions[number]
        assert item["properties"].get("deprecated", False) == (path != paths[-1])
        links = {link["rel"]: (path.parent / link["href"]).resolve() for link in item["links"]}
        links |= {"data": (path.parent / item["assets"]["data"]["href"]).resolve()}
        assert all(target.exists() for target in links.values())
        neighbours = {
            "predecessor-version": paths[number - 1] if number else None,
            "successor-version": paths[number + 1] if path != paths[-1] else None,
            "latest-version": paths[-1] if path != paths[-1] else None,
        }
        for rel, other in neighbours.items():
            assert links.get(rel) == other


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    for number in range(3):
        world.set(f"i{number}")
    world.publish()
    return world


def test_the_first_pass_is_a_run(world, tmp_path):
    assert one_pass(world) == (3, 0, 0, 0, 0, 3)
    run(world.job_into(tmp_path / "scratch"), engine="local", progress=False)
    assert read_output(world.output).equals(read_output(tmp_path / "scratch"))
    assert_sound(world)


def test_each_kind_of_change(world):
    one_pass(world)
    before = records(world)
    world.set("i1", content=1)
    world.set("i3")
    world.remove("i0")
    world.publish()
    assert one_pass(world)[:5] == (1, 1, 1, 1, 0)
    after = records(world)
    assert set(after) == {"i0", "i1", "i2", "i3"}
    assert after["i0"] == before["i0"]
    assert after["i1"].version != before["i1"].version
    assert not (world.output / before["i1"].data).exists()
    assert_sound(world)
    assert one_pass(world, prune=True)[:5] == (0, 0, 1, 3, 1)
    assert set(records(world)) == {"i1", "i2", "i3"}
    assert not (world.output / before["i0"].data).exists()
    assert_sound(world)
    assert one_pass(world, prune=True) == (0, 0, 0, 3, 0, 0)


def test_unchanged_scenes_are_not_read(tmp_path):
    with range_server(tmp_path) as server:
        world = World(tmp_path, href=f"{server.url}/{{}}.tif")
        world.set("i0")
        world.publish()
        one_pass(world)
        read = server.requests
        assert read
        assert one_pass(world) == (0, 0, 0, 1, 0, 0)
        assert server.requests == read
        (tmp_path / "i0.tif").unlink()
        world.set("i4")  # far from the first
        world.publish()
        assert one_pass(world) == (1, 0, 0, 1, 0, 1)
        assert server.requests > read
        assert_sound(world)


def test_unchanged_headers_are_not_read_either(tmp_path):
    with range_server(tmp_path) as server:
        world = World(tmp_path, href=f"{server.url}/{{}}.tif")
        world.bare = True  # items without proj:*
        world.set("i0")
        world.set("i4")
        world.publish()
        one_pass(world)
        read = server.requests
        assert one_pass(world) == (0, 0, 0, 2, 0, 0)
        assert server.requests == read
        world.set("i4", content=1)
        world.publish()
        (tmp_path / "i0.tif").unlink()
        assert one_pass(world) == (0, 1, 0, 1, 0, 1)
        assert records(world)["i4"].scene.shape is not None
        assert_sound(world)


def test_failed_scenes_are_tried_again(world):
    world.set("i4", health="missing")  # next to no other
    world.publish()
    result = update(world.job, engine="local", progress=False)
    assert result.exit_code == 1
    assert [failure.scene_id for failure in result.failures] == ["i4"]
    world.heal("i4")
    assert one_pass(world) == (0, 0, 0, 4, 0, 1)
    assert records(world)["i4"].status == "succeeded"
    assert_sound(world)


def test_retained_ground_stays_its_owners(world, tmp_path):
    one_pass(world)
    whole = read_output(world.output)
    world.remove("i1")
    world.publish()
    one_pass(world)
    # Its neighbours overlap it: nothing is counted twice, and nothing was done again.
    assert read_output(world.output).equals(whole)
    one_pass(world, prune=True)
    run(world.job_into(tmp_path / "scratch"), engine="local", progress=False)
    assert read_output(world.output).equals(read_output(tmp_path / "scratch"))


def test_a_namesake_from_another_collection(world, tmp_path):
    one_pass(world)
    world.set("other/i1", content=1)
    world.publish()
    assert one_pass(world)[:5] == (1, 1, 0, 2, 1)
    assert len(records(world)) == 4
    assert "i1" not in records(world)
    assert_sound(world)
    run(world.job_into(tmp_path / "scratch"), engine="local", progress=False)
    assert read_output(world.output).equals(read_output(tmp_path / "scratch"))


def test_an_empty_source_withdraws_nothing(world):
    one_pass(world)
    world.entries.clear()
    world.publish()
    with pytest.raises(SourceError, match="there is no scene of those that are asked for"):
        one_pass(world, prune=True)
    assert len(records(world)) == 3
    assert_sound(world)


def test_another_models_output_is_refused_then_redone_or_kept(world):
    one_pass(world)
    before = records(world)
    world.detector = "slow"
    with pytest.raises(OutputError, match="--overwrite, or with --keep-old"):
        one_pass(world)
    with pytest.raises(JobError, match="exclude each other"):
        one_pass(world, overwrite=True, keep_old=True)
    assert one_pass(world, keep_old=True)[:5] == (0, 3, 0, 0, 0)
    assert_sound(world)
    after = records(world)
    for name, old in before.items():
        assert after[name].predecessor == old.version
        assert (world.output / old.data).exists()
        assert (world.output / f"versions/{name}/{old.version}.json").exists()
    assert one_pass(world) == (0, 0, 0, 3, 0, 0)
    assert_linked(world, "i0", [before["i0"].version, after["i0"].version])
    world.detector = "paint"
    assert one_pass(world, overwrite=True)[:5] == (0, 3, 0, 0, 0)
    # What was kept stays; what was replaced now does not.
    assert (world.output / before["i0"].data).exists()
    assert not (world.output / after["i0"].data).exists()
    assert_sound(world)


def test_versions_of_versions(tmp_path):
    world = World(tmp_path)
    versions = []
    for content in range(3):
        world.set("i0", content=content)
        world.publish()
        one_pass(world, keep_old=True)
        versions.append(records(world)["i0"].version)
    assert_linked(world, "i0", versions)
    assert_sound(world)
    world.set("i1")
    world.remove("i0")
    world.publish()
    one_pass(world, prune=True)
    assert list(world.storage.list("versions")) == []
    assert [path.name[:2] for path in (world.output / "data").iterdir()] == ["i1"]


def test_what_is_gone_cannot_be_redone(world, caplog):
    one_pass(world)
    world.remove("i0")
    world.publish()
    world.detector = "slow"
    one_pass(world, overwrite=True)
    assert (
        "other models or settings stand for scenes that the source no longer has (1)" in caplog.text
    )
    one_pass(world, prune=True)
    assert_sound(world)


def test_older_versions_survive_compaction(world):
    one_pass(world, keep_old=True)
    compact(*open_output(world.output))
    world.set("i1", content=1)
    world.publish()
    one_pass(world, keep_old=True)
    compact(*open_output(world.output))
    assert_sound(world)
    (kept,) = world.output.glob("versions/*/*.json")
    data = json.loads(kept.read_text())["assets"]["data"]["href"]
    assert (kept.parent / data).exists()
    assert one_pass(world) == (0, 0, 0, 3, 0, 0)


def test_two_passes_at_once(world, monkeypatch):
    monkeypatch.setattr("geosweep.catalog.lease.BEAT_S", 0.1)
    with lease(world.storage, "update") as held:
        assert held
        result = update(world.job, engine="local", progress=False)
        assert result.exit_code == 0
        assert result.elsewhere is not None
        assert f"process {os.getpid()}" in result.elsewhere
        told = CliRunner().invoke(app, ["update", str(world.write_job()), "--engine", "local"])
        assert told.exit_code == 0
        line = f"geosweep: {result.elsewhere} is at work on {world.output}; nothing to do here."
        assert told.output.strip() == line
        assert read_collection(world.storage) is None  # nothing was written
    assert one_pass(world)[0] == 3


def test_two_that_start_together(world, monkeypatch):
    monkeypatch.setattr("geosweep.catalog.lease.BEAT_S", 0.1)
    world.detector = "slow"
    with ThreadPoolExecutor(2) as pool:
        done = sorted(counts[-1] for counts in pool.map(one_pass, [world, world]))
    # Both at once, or one after the other if this machine is slow: nothing is done twice.
    assert done == [0, 3]
    assert_sound(world)


def test_a_pass_that_was_taken_for_dead_stops(world, monkeypatch):
    monkeypatch.setattr("geosweep.catalog.lease.BEAT_S", 0.05)
    world.detector = "slow"

    def take_over() -> None:
        while not list(world.output.glob("items/*.json")):
            time.sleep(0.01)
        world.storage.put(".geosweep/lease-2.json", b"{}")

    thread = threading.Thread(target=take_over)
    thread.start()
    with pytest.raises(StorageError, match="another one has taken over"):
        one_pass(world)
    thread.join()
    assert 0 < len(records(world)) < 3


PASS = """
import sys
from geosweep.pipeline import Job, update
result = update(Job.from_yaml(sys.argv[1]), engine="local", progress=False)
print(result.counts["scenes_now"])
"""


def test_a_killed_pass_is_finished_by_the_next(world, tmp_path, monkeypatch):
    world.detector = "slow"
    job_file = world.write_job()
    with subprocess.Popen([sys.executable, "-c", PASS, str(job_file)]) as process:
        deadline = time.monotonic() + 60
        while not list(world.output.glob("items/*.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = len(records(world))
    assert done < 3
    (world.output / "data" / f"gone-{'0' * 16}.parquet").write_bytes(b"left by a killed run")
    monkeypatch.setattr("geosweep.catalog.lease.PATIENCE_S", 0.5)  # the dead don't mind
    assert one_pass(world)[-1] == 3 - done
    assert_sound(world)


def test_readers_see_old_or_new(world):
    one_pass(world)
    seen: list[tuple[str, int]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            record = Records(world.storage).read("i0")
            assert record is not None
            try:
                size = (world.output / str(record.data)).stat().st_size
            except FileNotFoundError:
                # Replaced in between: then the item says so by now.
                again = Records(world.storage).read("i0")
                assert again is not None
                assert again.version != record.version
                continue
            assert size == record.data_size
            seen.append((record.version, size))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for content in (1, 2, 0, 1):
            world.set("i0", content=content)
            world.publish()
            one_pass(world)
    finally:
        stop.set()
        reader.join()
    assert len({version for version, _ in seen}) > 2


def test_ray_keeps_old_versions_too(world, ray_cluster):
    one_pass(world)
    before = records(world)
    world.set("i1", content=1)
    world.publish()
    result = update(world.job, engine="ray", keep_old=True, progress=False)
    assert result.counts["changed"] == 1
    assert_linked(world, "i1", [before["i1"].version, records(world)["i1"].version])
    assert_sound(world)


def test_the_command(world):
    job_file = str(world.write_job())
    runner = CliRunner()
    first = runner.invoke(app, ["update", job_file, "--engine", "local"])
    assert first.exit_code == 0, first.output
    assert "3 new, 0 changed, 0 removed, 0 unchanged" in " ".join(first.output.split())
    world.remove("i2")
    world.publish()
    second = runner.invoke(app, ["update", job_file, "--engine", "local"])
    assert "removed: i2" in second.output
    assert "--prune withdraws their results" in second.output
    third = runner.invoke(app, ["update", job_file, "--engine", "local", "--prune", "--json"])
    report = json.loads(third.stdout)
    assert report["counts"]["withdrawn"] == 1
    assert report["removed"] == ["i2"]
    wrong = runner.invoke(app, ["update", job_file, "--since", "soon"])
    assert wrong.exit_code == 2
    assert "since is 'soon'" in wrong.output
