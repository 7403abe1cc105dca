"""`update` from a real STAC API: the watermark, ids, and items that are replaced in place."""

from __future__ import annotations

import itertools
import threading

import pytest

from geosweep.catalog import Records, changes, open_source
from geosweep.pipeline import read_output, run, update
from tests.worlds import ApiWorld

CHANGES = ("new", "changed", "removed", "unchanged", "withdrawn", "scenes_now")
_numbers = itertools.count()


@pytest.fixture
def world(pgstac, proxy, tmp_path):
    """Four scenes, none of which touches another, done an hour and more apart."""
    made = ApiWorld(tmp_path, pgstac, f"world{next(_numbers)}", proxy.url)
    for number in (0, 2, 4):
        made.set(f"i{number}")
    made.publish()
    proxy.forget()
    return made


def one_pass(world, **options) -> tuple[int, ...]:
    result = update(world.job, engine="local", progress=False, **options)
    return tuple(result.counts[name] for name in CHANGES)


def whole_items(proxy) -> int:
    """Searches that asked for items with all their fields, since the proxy was told to forget."""
    return sum("fields" not in search for search in proxy.searches)


def test_passes_ask_for_ids_and_for_what_was_updated(world, proxy, tmp_path):
    assert one_pass(world) == (3, 0, 0, 0, 0, 3)
    proxy.forget()
    assert one_pass(world) == (0, 0, 0, 3, 0, 0)
    (recent,) = [search for search in proxy.searches if "fields" not in search]
    # i4 was the last, at 03:00 by the items' own clock.
    assert recent["filter"]["args"][1] == "2024-01-01T02:00:00Z"
    world.set("i2", content=1)
    world.set("i6", content=1)
    world.remove("i0")
    world.publish()
    assert one_pass(world) == (1, 1, 1, 1, 0, 2)
    # i6 overlaps i0, and gets its ground.
    assert one_pass(world, prune=True) == (0, 0, 1, 3, 1, 1)
    run(world.job_into(tmp_path / "scratch"), engine="local", progress=False)
    assert read_output(world.output).equals(read_output(tmp_path / "scratch"))


def test_what_the_watermark_misses(world, proxy):
    one_pass(world)
    late = world.item("i0")
    late["properties"]["updated"] = "2020-01-01T00:00:00Z"
    world.set("i3")
    world.item = lambda name, real=world.item: (
        {"i0": late, "i3": late | {"id": "i3"}}.get(name) or real(name)
    )
    world.publish()
    # A new item is found by its id, however it is dated; one replaced in place with an old date isn't.
    assert one_pass(world)[:4] == (1, 0, 0, 3)
    assert one_pass(world, since="2019-01-01T00:00:00Z")[:4] == (0, 1, 0, 3)


def test_everything_if_asked_for(world, proxy):
    one_pass(world)
    proxy.forget()
    assert one_pass(world, since="..")[:4] == (0, 0, 0, 3)
    assert not any("fields" in search or "filter" in search for search in proxy.searches)


def test_an_item_that_is_replaced_while_a_pass_runs(world):
    world.detector = "slow"

    def replace_in_place() -> None:
        while not list(world.output.glob("items/*.json")):
            pass
        world.set("i0", content=1)
        world.publish()

    thread = threading.Thread(target=replace_in_place)
    thread.start()
    one_pass(world)
    thread.join()
    before = {record.scene.id: record.version for record in Records(world.storage).all()}
    assert one_pass(world) == (0, 1, 0, 2, 0, 1)
    after = {record.scene.id: record.version for record in Records(world.storage).all()}
    assert [name for name in after if after[name] != before[name]] == ["i0"]


def test_a_server_that_cannot_search_by_updated(world, proxy, caplog):
    one_pass(world)
    world.set("i2", content=1)
    world.publish()

    proxy.failures = [(400, {}), (400, {})]  # neither as text nor as a time
    assert one_pass(world)[:4] == (0, 1, 0, 2)
    assert "everything is looked at" in caplog.text


def test_changes_compares_and_leaves_all_as_it_is(world, proxy):
    one_pass(world)
    world.set("i2", content=1)
    world.remove("i4")
    world.publish()
    files = {path: path.stat().st_mtime_ns for path in world.output.rglob("*")}
    found = changes(open_source(world.job.source), world.output)
    assert [scene.id for scene in found.changed] == ["i2"]
    assert [standing.scene_id for standing in found.removed] == ["i4"]
    assert files == {path: path.stat().st_mtime_ns for path in world.output.rglob("*")}
