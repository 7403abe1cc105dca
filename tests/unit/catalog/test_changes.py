"""What has changed in a source since an output was made: files of items, and plain rasters."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from geosweep.catalog import (
    OutputError,
    Records,
    SceneRecord,
    SourceError,
    open_source,
    open_storage,
    write_collection,
)
from geosweep.catalog.changes import changes
from tests.unit.catalog.helpers import feature_collection, make_item, make_raster, write_json

FINGERPRINT = "f" * 16


def item(name, *, updated="2024-01-01T00:00:00Z", collection="c", **asset):
    made = make_item(name, f"https://pixels.invalid/{name}.tif", collection=collection, **asset)
    made["properties"]["updated"] = updated
    return made


class World:
    """A file of items and an output, whose records are written by hand: nothing is swept here."""

    def __init__(self, folder):
        self.path = folder / "items.json"
        self.output = folder / "out"
        self.storage = open_storage(self.output)
        write_collection(
            self.storage,
            collection_id="test",
            description="made by a test",
            fingerprint=FINGERPRINT,
            job={},
            columns=[],
            models={},
        )

    def publish(self, *items):
        write_json(self.path, feature_collection(*items))

    def record(self, source=None, fingerprint=FINGERPRINT):
        """Record all of the source as done."""
        for scene in open_source(source or self.path):
            record = SceneRecord(
                scene=scene,
                status="empty",
                version="v",
                fingerprint=fingerprint,
                counts={},
                timings={},
                data=f"data/{scene.id}-v.parquet",
                rows=0,
                created=datetime(2024, 5, 1, tzinfo=UTC),
            )
            Records(self.storage).commit(record, replace=True)

    def compare(self, **options):
        """Ids of what is new, changed and removed, and how many are unchanged."""
        found = changes(self.path, self.output, **options)
        ids = [
            sorted(s.item_id for s in part) for part in (found.new, found.changed, found.removed)
        ]
        return (*ids, found.unchanged)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_nothing_has_changed(world):
    world.publish(item("a"), item("b"))
    world.record()
    assert world.compare() == ([], [], [], 2)
    assert not changes(world.path, world.output)


def test_new_changed_and_removed(world):
    world.publish(item("a"), item("b"), item("c"), item("d"))
    world.record()
    world.publish(
        item("a"),
        item("b", updated="2024-01-02T00:00:00Z"),
        item("d", **{"file:checksum": "12"}),
        item("e"),
    )
    assert world.compare() == (["e"], ["b", "d"], ["c"], 1)
    assert changes(world.path, world.output)


def test_what_the_filter_no_longer_lets_through_is_removed(world):
    world.publish(item("a"), item("b"))
    world.record()
    moved = item("b")
    moved["properties"]["datetime"] = "2019-01-01T00:00:00Z"
    world.publish(item("a"), moved)
    found = changes({"stac": str(world.path), "datetime": "2022-01-01/.."}, world.output)
    assert [standing.scene_id for standing in found.removed] == ["b"]


def test_records_of_another_job_are_out_of_date(world):
    world.publish(item("a"))
    world.record(fingerprint="0" * 16)
    assert world.compare() == ([], ["a"], [], 0)


def test_an_item_of_another_collection_is_another_item(world):
    world.publish(item("a"))
    world.record()
    world.publish(item("a"), item("a", collection="d"))
    found = changes(world.path, world.output)
    # The old record's scene has got a suffix by now: that is no removal.
    assert [scene.collection for scene in found.new] == ["d"]
    assert [scene.collection for scene in found.changed] == ["c"]
    assert found.removed == ()


def test_a_namesake_that_leaves_is_removed_and_the_other_is_not(world):
    world.publish(item("a"), item("a", collection="d"))
    world.record()
    world.publish(item("a", collection="d"))
    found = changes(world.path, world.output)
    assert [scene.collection for scene in found.changed] == ["d"]
    assert [standing.collection for standing in found.removed] == ["c"]
    assert found.new == ()


def test_rasters_are_told_by_size_and_time_and_namesakes_by_folder(world, tmp_path):
    folder = tmp_path / "rasters"
    first = make_raster(folder / "x.tif")
    make_raster(folder / "y.tif")
    world.record([str(folder)])
    assert not changes([str(folder)], world.output)
    make_raster(first, size=(80, 48))
    make_raster(folder / "sub" / "y.tif")
    found = changes([str(folder)], world.output)
    assert [scene.href for scene in found.new] == [str(folder / "sub" / "y.tif")]
    assert [scene.href for scene in found.changed] == [str(first), str(folder / "y.tif")]
    assert found.removed == ()


def test_mistakes_are_one_sentence(world, tmp_path):
    world.publish(item("a"))
    with pytest.raises(SourceError, match="since is 'yesterday': give a time such as"):
        world.compare(since="yesterday")
    with pytest.raises(OutputError, match=r"has no collection\.json"):
        changes(world.path, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
