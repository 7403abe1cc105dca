"""Compaction: few files for many scenes, the same rows at every moment, and runs go on after it."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import geopandas as gpd
import numpy as np
import obstore
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from rasterio.transform import from_origin

from geosweep.catalog import (
    Records,
    Scene,
    open_storage,
    read_collection,
    validate_output,
    write_snapshot,
)
from geosweep.catalog.errors import OutputError, StorageError
from geosweep.catalog.lease import lease, presence
from geosweep.catalog.records import own_file
from geosweep.catalog.sharedfiles import members
from geosweep.catalog.versions import keep_version
from geosweep.pipeline import read_output
from geosweep.pipeline.compaction import compact
from geosweep.pipeline.datafiles import live_files, open_files
from geosweep.pipeline.scene_reader import SceneTask
from tests.unit.pipeline.test_commit import HEADER, committer_in, data_files, detections

SIDE_DEG = 0.01


def scene_at(number: int, **scene) -> Scene:
    """Scene number so and so of a lattice of ten columns."""
    row, column = divmod(number, 10)
    west, south = -110 + column * SIDE_DEG, 45 + row * SIDE_DEG
    outline = shapely.box(west, south, west + SIDE_DEG, south + SIDE_DEG)
    return Scene(f"s{number}", f"{number}.tif", f"s{number}", footprint=outline, **scene)


def commit(committer, scene: Scene, rows: int):
    west, _, _, north = scene.footprint.bounds
    header = replace(HEADER, crs="EPSG:4326", transform=from_origin(west, north, 1e-5, 1e-5))
    committer.succeed(SceneTask(scene), header, detections(rows), {})


def many_scenes(folder, rows, **options):
    """An output of small scenes with so many rows each; its storage, collection and committer."""
    committer = committer_in(folder, **options)
    for number, count in enumerate(rows):
        commit(committer, scene_at(number), count)
    storage = open_storage(str(folder))
    write_snapshot(storage)
    return storage, read_collection(storage), committer


def rows_of(folder) -> pd.DataFrame:
    frame = read_output(folder).sort_values("detection_id", ignore_index=True)
    return pd.DataFrame(frame.drop(columns="geometry")).assign(geometry=frame.geometry.to_wkb())


def assert_sound(storage):
    check = validate_output(storage, read_collection(storage), fetch_schemas=False)
    assert check.problems == []


def untouched(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_many_small_files_become_one_with_the_same_rows(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [20, 0, 35, 7, 0, 50] * 5)
    before = rows_of(tmp_path)
    items = {item["id"]: item for item in Records(storage).items()}
    report = compact(storage, collection)
    (key,) = data_files(tmp_path)
    assert key.startswith("data/part-")
    assert (report.files_before, report.files_after, report.removed) == (30, 1, 30)
    assert (report.scenes, report.rows, report.dead) == (30, len(before), 0)
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)
    assert_sound(storage)
    for item in Records(storage).items():
        asset = item["assets"]["data"]
        assert asset["href"] == f"../{key}"
        assert asset["file:size"] == (tmp_path / key).stat().st_size
        old = items[item["id"]]
        old["assets"]["data"] = asset
        old["stac_extensions"] = item["stac_extensions"]
        assert item == old
    assert not own_file(Records(storage).read("s0"))


def test_the_file_is_what_a_sweep_writes(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [40] * 30)
    own = pq.ParquetFile(tmp_path / data_files(tmp_path)[0])
    compact(storage, collection)
    (key,) = data_files(tmp_path)
    file = pq.ParquetFile(tmp_path / key)
    assert file.schema_arrow.remove_metadata() == own.schema_arrow.remove_metadata()
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    geo, theirs = (json.loads(f.schema_arrow.metadata[b"geo"]) for f in (file, own))
    frame = gpd.read_parquet(tmp_path / key)
    bbox = geo["columns"]["geometry"].pop("bbox")
    theirs["columns"]["geometry"].pop("bbox")
    assert geo == theirs
    np.testing.assert_allclose(bbox, frame.total_bounds)
    distance = frame.geometry.hilbert_distance()
    assert distance.is_monotonic_increasing
    part = gpd.read_parquet(tmp_path / key, bbox=(-109.95, 45.0, -109.9, 45.01))
    assert 0 < len(part) < len(frame)


def test_files_keep_to_the_target_and_hold_neighbours(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [60] * 100)
    before = rows_of(tmp_path)
    report = compact(storage, collection, target_size=100_000)
    files = data_files(tmp_path)
    assert 4 < len(files) < 60
    assert report.written == len(files) == report.files_after
    sizes = [(tmp_path / key).stat().st_size for key in files]
    assert max(sizes) < 150_000
    # Each file's scenes lie close together: their boxes hardly overlap.
    areas = [shapely.box(*gpd.read_parquet(tmp_path / key).total_bounds).area for key in files]
    assert sum(areas) < 2.0 * shapely.box(*gpd.read_parquet(tmp_path / "data").total_bounds).area
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)
    assert_sound(storage)


@pytest.mark.parametrize("target", [1 << 20, 100_000])
def test_what_is_compact_is_left_alone(tmp_path, target):
    storage, collection, _ = many_scenes(tmp_path, [60, 0, 10] * 20)
    compact(storage, collection, target_size=target)
    before = untouched(tmp_path)
    report = compact(storage, collection, target_size=target)
    assert (report.written, report.merged, report.removed, report.left) == (0, 0, 0, 0)
    assert untouched(tmp_path) == before


def test_a_larger_target_merges_further(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [60] * 50)
    compact(storage, collection, target_size=60_000)
    first = len(data_files(tmp_path))
    compact(storage, collection, target_size=10 << 20)
    assert (first > 3, len(data_files(tmp_path))) == (True, 1)
    assert_sound(storage)


def test_a_single_scene_keeps_its_file(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [5])
    before = untouched(tmp_path)
    assert compact(storage, collection).written == 0
    assert untouched(tmp_path) == before


def test_only_scenes_without_rows_end_in_one_file_without_rows(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [0] * 5)
    compact(storage, collection)
    (key,) = data_files(tmp_path)
    assert pq.read_metadata(tmp_path / key).num_rows == 0
    assert_sound(storage)
    assert len(read_output(tmp_path)) == 0
    assert "detection_id" in read_output(tmp_path)


def test_partitions_stay_apart(tmp_path):
    committer = committer_in(tmp_path, partition="year")
    for number in range(12):
        year = datetime(2020 + number % 3, 6, 1, tzinfo=UTC)
        commit(committer, scene_at(number, datetime=year), 10)
    storage = open_storage(str(tmp_path))
    write_snapshot(storage)
    before = rows_of(tmp_path)
    compact(storage, read_collection(storage))
    folders = [key.rpartition("/")[0] for key in data_files(tmp_path)]
    assert folders == ["data/year=2020", "data/year=2021", "data/year=2022"]
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)
    assert_sound(storage)


def test_pixels_stand_scene_by_scene(tmp_path):
    committer = committer_in(tmp_path, crs=None)
    for number in range(5):
        task = SceneTask(Scene(f"s{number}", f"{number}.tif", f"s{number}", shape=(1000, 1000)))
        committer.succeed(task, HEADER, detections(10), {})
    storage = open_storage(str(tmp_path))
    write_snapshot(storage)
    before = rows_of(tmp_path)
    compact(storage, {"geosweep:job": {"output": {"crs": None}}})
    (key,) = data_files(tmp_path)
    scenes = pq.read_table(tmp_path / key)["scene_id"].to_pylist()
    assert sum(a != b for a, b in pairwise(scenes)) == 4
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)


def replaced(tmp_path):
    """A compacted output in which scene s3 was swept anew since, with 2 rows instead of 9."""
    storage, collection, committer = many_scenes(tmp_path, [9] * 6)
    compact(storage, collection)
    commit(committer, scene_at(3, updated="2024-05-01T00:00:00Z"), 2)
    write_snapshot(storage)
    return storage, collection


def test_dead_rows_are_seen_by_nobody_and_dropped_by_the_next_compaction(tmp_path):
    storage, collection = replaced(tmp_path)
    assert len(data_files(tmp_path)) == 2
    before = rows_of(tmp_path)
    assert before.scene_id.value_counts()["s3"] == 2
    assert len(before) == 47
    assert_sound(storage)
    files = {file.key: (file.dead, len(file.scenes)) for file in open_files(storage)}
    assert sorted(files.values()) == [(0, 1), (9, 5)]
    report = compact(storage, collection)
    assert (report.dead, report.written) == (9, 1)
    assert len(data_files(tmp_path)) == 1
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)
    assert_sound(storage)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path):
    storage, collection = replaced(tmp_path)
    before = untouched(tmp_path)
    report = compact(storage, collection, dry_run=True)
    assert untouched(tmp_path) == before
    assert (report.files_before, report.files_after, report.dead) == (2, 1, 9)
    real = compact(storage, collection)
    assert (real.scenes, real.rows, real.removed) == (report.scenes, report.rows, report.removed)


def test_files_that_a_kept_version_points_to_stay(tmp_path):
    storage, collection, committer = many_scenes(tmp_path, [9] * 6)
    compact(storage, collection)
    (first,) = data_files(tmp_path)
    keep_version(storage, "s3")
    commit(committer, scene_at(3, updated="2024-05-01T00:00:00Z"), 2)
    write_snapshot(storage)
    assert_sound(storage)
    before = rows_of(tmp_path)
    for _ in range(2):
        compact(storage, collection)
        assert first in data_files(tmp_path)
        assert len(data_files(tmp_path)) == 2
        pd.testing.assert_frame_equal(rows_of(tmp_path), before)
        assert_sound(storage)
    table = pq.read_table(tmp_path / first, filters=[("scene_id", "=", "s3")])
    assert table.num_rows == 9


def test_a_shared_file_that_all_scenes_have_left_is_noted_and_removed(tmp_path):
    storage, collection, committer = many_scenes(tmp_path, [9] * 2)
    compact(storage, collection)
    (shared,) = data_files(tmp_path)
    for number in range(2):
        commit(committer, scene_at(number, updated="2024-05-01T00:00:00Z"), 2)
    write_snapshot(storage)
    assert shared in data_files(tmp_path)
    assert_sound(storage)
    check = validate_output(storage, collection, fetch_schemas=False)
    assert any("shared by scenes that are elsewhere now" in note for note in check.notes)
    assert compact(storage, collection).removed == 3
    assert len(data_files(tmp_path)) == 1
    assert rows_of(tmp_path).scene_id.tolist().count("s1") == 2


class Broken:
    """A storage that fails from the given change on, beside the leases'."""

    def __init__(self, storage, left):
        self._storage = storage
        self._left = left
        self._lock = threading.Lock()

    def __getattr__(self, name):
        real = getattr(self._storage, name)
        if name not in ("put", "put_file", "delete"):
            return real

        def change(key, *rest):
            with self._lock:
                if not key.startswith(".geosweep"):
                    if not self._left:
                        raise StorageError("cut off")
                    self._left -= 1
            return real(key, *rest)

        return change


def test_wherever_it_breaks_off_the_rows_are_right_and_the_next_one_finishes(tmp_path):
    made = tmp_path / "made"
    many_scenes(made, [9, 0, 4, 3])
    before = rows_of(made)
    finished = 0
    for steps in range(20):
        folder = tmp_path / str(steps)
        shutil.copytree(made, folder)
        storage = open_storage(str(folder))
        collection = read_collection(storage)
        try:
            compact(Broken(storage, steps), collection)
            finished += 1
        except StorageError:
            pass
        pd.testing.assert_frame_equal(rows_of(folder), before)
        compact(storage, collection)
        pd.testing.assert_frame_equal(rows_of(folder), before)
        assert len(data_files(folder)) == 1
        assert_sound(storage)
    # A file, four items, the snapshot, four old files.
    assert finished == 20 - 10


def test_a_scene_that_is_replaced_meanwhile_keeps_its_new_rows(tmp_path):
    storage, collection, committer = many_scenes(tmp_path, [9] * 6)

    class Overtaken(Broken):
        def put_file(self, key, path):
            storage.put_file(key, path)
            commit(committer, scene_at(3, updated="2024-05-01T00:00:00Z"), 2)

    report = compact(Overtaken(storage, -1), collection)
    assert (report.scenes, report.skipped, report.files_after) == (5, 1, 2)
    assert rows_of(tmp_path).scene_id.value_counts()["s3"] == 2
    assert_sound(storage)
    assert compact(storage, collection).dead == 9
    assert_sound(storage)


def test_files_of_a_run_that_writes_just_now_are_left(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [9] * 3)
    ours = tmp_path / "data" / "s9-0123456789abcdef.parquet"
    shutil.copy(tmp_path / data_files(tmp_path)[0], ours)
    with presence(storage, "run", beat_s=0.1):
        report = compact(storage, collection, patience_s=1)
    assert (report.left, report.removed, ours.exists()) == (1, 3, True)
    report = compact(storage, collection, patience_s=1)
    assert (report.left, report.removed, ours.exists()) == (0, 1, False)


def test_of_two_at_once_one_does_nothing(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [9] * 3)
    before = rows_of(tmp_path)
    with lease(storage, "update", beat_s=0.1):
        report = compact(storage, collection, patience_s=1)
    assert report.holder is not None and report.holder.startswith("update on ")
    assert (report.written, len(data_files(tmp_path))) == (0, 3)
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)


def test_who_reads_meanwhile_sees_the_same_rows(tmp_path):
    storage, collection, _ = many_scenes(tmp_path, [30] * 40)
    expected = rows_of(tmp_path)
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            seen.append(rows_of(tmp_path))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for target in (40_000, 120_000, 1 << 20):
            compact(storage, collection, target_size=target)
    finally:
        stop.set()
        reader.join()
    assert len(seen) > 3
    for rows in seen:
        pd.testing.assert_frame_equal(rows, expected)


def test_of_a_shared_file_in_an_object_store_only_what_is_wanted_is_read(monkeypatch):
    output = "memory://parts"
    storage, collection, _ = many_scenes(output, [400] * 8)
    compact(storage, collection)
    expected = len(rows_of(output))
    (key,) = storage.list("data")
    size = len(storage.get(key))
    read: list[int] = []
    real = obstore.get_range

    def get_range(store, path, *, start, end):
        read.append(end - start)
        return real(store, path, start=start, end=end)

    monkeypatch.setattr(obstore, "get_range", get_range)
    (file,) = open_files(storage)
    assert sum(batch.num_rows for batch in file.batches(["score"])) == expected
    assert 0 < sum(read) < size / 2
    (file,) = live_files(storage, members(storage))
    assert file.rows == expected


def test_object_stores_are_compacted_too():
    output = "memory://compact"
    storage, collection, _ = many_scenes(output, [9, 0, 4, 3] * 3)
    before = rows_of(output)
    assert compact(storage, collection).files_after == 1
    assert [key[:10] for key in storage.list("data")] == ["data/part-"]
    pd.testing.assert_frame_equal(rows_of(output), before)
    assert_sound(storage)


def test_a_lost_shared_file_is_one_sentence_and_a_new_sweep_repairs_it(tmp_path):
    storage, collection, committer = many_scenes(tmp_path, [9] * 3)
    before = rows_of(tmp_path)
    compact(storage, collection)
    (tmp_path / data_files(tmp_path)[0]).unlink()
    with pytest.raises(OutputError, match="run the job again with --overwrite"):
        read_output(tmp_path)
    with pytest.raises(OutputError, match="run the job again with --overwrite"):
        compact(storage, collection)
    for number in range(3):
        commit(committer, scene_at(number), 9)
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)
