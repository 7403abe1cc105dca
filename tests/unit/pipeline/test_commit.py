"""Commits: rows first, record last, once; two at the same time, replacements, failures."""

import json
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import geopandas as gpd
import h3
import numpy as np
import pandas as pd
import pytest
from rasterio.transform import from_origin
from shapely import MultiPolygon, box

from geosweep.catalog import Records, Scene, open_storage
from geosweep.catalog.collection import write_collection
from geosweep.catalog.errors import OutputError
from geosweep.catalog.records import own_file
from geosweep.pipeline import Job
from geosweep.pipeline.collect import SceneDetections
from geosweep.pipeline.commit import Committer, finished
from geosweep.pipeline.scene_reader import SceneHeader, SceneTask
from geosweep.pipeline.settings import ModelFace, Settings
from geosweep.pipeline.windows import WindowGrid

HEADER = SceneHeader(
    grid=WindowGrid.cover(1000, 1000, 400, 0.05),
    scale=(1.0, 1.0),
    model_size=None,
    transform=from_origin(500_000, 4_978_000, 0.1, 0.1),
    crs="EPSG:32612",
    size=(1000, 1000),
    outside_aoi=0,
    owned_elsewhere=0,
)


def settings_for(output, version="1", **options):
    job = Job.from_dict(
        {"source": {"stac": "a.json"}, "output": {"path": str(output), **options}},
    )
    return Settings.build(job, ModelFace("m", version, ("tree",)), {})


def committer_in(output, version="1", **options):
    settings = settings_for(output, version, **options)
    storage = open_storage(str(output))
    write_collection(
        storage,
        collection_id="test",
        description="test",
        fingerprint=settings.fingerprint,
        job={},
        columns=settings.schema.describe(),
        models=settings.models,
    )
    return Committer(storage, settings)


def task_for(time=None, **scene):
    return SceneTask(Scene("scene", "a.tif", "scene", datetime=time, **scene))


def detections(count):
    start = np.arange(count, dtype=np.float32)[:, None] * 10
    return SceneDetections(
        np.concatenate([start, start, start + 5, start + 5], axis=1),
        np.zeros(count, np.int64),
        np.full(count, 0.5, np.float32),
        {},
        {"windows": 9, "windows_processed": 9, "detections": count},
    )


def data_files(output):
    return sorted(p.relative_to(output).as_posix() for p in output.glob("data/**/*.parquet"))


def record_in(output):
    record = Records(open_storage(str(output))).read("scene")
    assert record is not None
    return record


def test_rows_are_where_the_record_points(tmp_path):
    outcome = committer_in(tmp_path).succeed(task_for(), HEADER, detections(3), {"read": 1.0})
    record = record_in(tmp_path)
    assert (outcome.status, record.status, record.rows) == ("succeeded", "succeeded", 3)
    assert data_files(tmp_path) == [record.data]
    assert record.data_size == (tmp_path / record.data).stat().st_size
    assert len(gpd.read_parquet(tmp_path / record.data)) == 3
    assert set(record.timings) == {"read", "write"}


def test_a_scene_without_detections_is_empty_and_has_a_file_with_the_columns(tmp_path):
    outcome = committer_in(tmp_path).succeed(task_for(), HEADER, detections(0), {})
    frame = gpd.read_parquet(tmp_path / record_in(tmp_path).data)
    assert (outcome.status, len(frame)) == ("empty", 0)
    assert "detection_id" in frame.columns


def test_a_repeat_overwrites_itself(tmp_path):
    for _ in range(2):
        committer_in(tmp_path).succeed(task_for(), HEADER, detections(3), {})
    assert len(data_files(tmp_path)) == 1
    assert len(list((tmp_path / "items").iterdir())) == 1


def _commit_when_all_are_ready(output, count, barrier):
    committer = Committer(open_storage(str(output)), settings_for(output))
    barrier.wait(60)
    committer.succeed(task_for(), HEADER, detections(count), {})


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_several_who_commit_one_scene_at_the_same_time_leave_it_once(tmp_path, kind):
    committer_in(tmp_path)
    if kind == "threads":
        barrier, maker, number = threading.Barrier(6), threading.Thread, 6
    else:
        context = multiprocessing.get_context("spawn")
        barrier, maker, number = context.Barrier(2), context.Process, 2
    arguments = (tmp_path, 4, barrier)
    workers = [maker(target=_commit_when_all_are_ready, args=arguments) for _ in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert getattr(worker, "exitcode", 0) == 0
    record = record_in(tmp_path)
    assert data_files(tmp_path) == [record.data]
    assert len(gpd.read_parquet(tmp_path / record.data)) == record.rows == 4
    hidden = [p for p in tmp_path.rglob("*") if p.is_file() and p.name.startswith(".")]
    assert hidden == []


class Watched:
    """A storage that notes what is done to it, and on what the item points to at that moment."""

    def __init__(self, storage, fail_at=None):
        self._storage = storage
        self._fail_at = fail_at
        self.done = []

    def __getattr__(self, name):
        real = getattr(self._storage, name)
        if name not in ("put", "put_if_absent", "put_file", "delete"):
            return real

        def noted(key, *args):
            if self._fail_at == name:
                raise OutputError("disk full")
            self.done.append((name, key.split("/")[0]))
            if name == "delete":
                pointed_to = json.loads(self._storage.get("items/scene.json"))
                assert key.split("/")[-1] not in json.dumps(pointed_to["assets"])
            return real(key, *args)

        return noted


def test_a_new_version_stands_before_the_old_file_goes(tmp_path):
    committer_in(tmp_path).succeed(task_for(), HEADER, detections(3), {})
    old = record_in(tmp_path)
    watched = Watched(open_storage(str(tmp_path)))
    newer = task_for(updated="2024-05-01T00:00:00Z")
    Committer(watched, settings_for(tmp_path)).succeed(newer, HEADER, detections(2), {})
    steps = [step for step in watched.done if step[0] != "put_if_absent"]
    assert steps == [("put_file", "data"), ("put", "items"), ("delete", "data")]
    new = record_in(tmp_path)
    assert new.data != old.data
    assert data_files(tmp_path) == [new.data]
    assert new.rows == 2


@pytest.mark.parametrize("step", ["put_file", "put"])
def test_a_replacement_that_breaks_off_leaves_the_old_result_whole(tmp_path, step):
    committer_in(tmp_path).succeed(task_for(), HEADER, detections(3), {})
    old = record_in(tmp_path)
    broken = Committer(Watched(open_storage(str(tmp_path)), step), settings_for(tmp_path))
    with pytest.raises(OutputError, match="disk full"):
        broken.succeed(task_for(updated="2024-05-01T00:00:00Z"), HEADER, detections(2), {})
    assert record_in(tmp_path) == old
    assert len(gpd.read_parquet(tmp_path / old.data)) == 3


def test_a_failure_never_replaces_a_result_of_the_same_version(tmp_path):
    committer = committer_in(tmp_path)
    committer.succeed(task_for(), HEADER, detections(3), {})
    committer.fail(task_for(), "a reader died")
    record = record_in(tmp_path)
    assert (record.status, record.rows) == ("succeeded", 3)
    assert data_files(tmp_path) == [record.data]


def test_a_result_replaces_a_failure(tmp_path):
    committer = committer_in(tmp_path)
    committer.fail(task_for(), "a reader died", {"windows": 9, "windows_failed": 9})
    assert record_in(tmp_path).error == "a reader died"
    committer.succeed(task_for(), HEADER, detections(3), {})
    record = record_in(tmp_path)
    assert (record.status, record.error) == ("succeeded", None)


def test_a_failure_of_a_newer_version_takes_the_old_rows_away(tmp_path):
    committer = committer_in(tmp_path)
    committer.succeed(task_for(), HEADER, detections(3), {})
    committer.fail(task_for(updated="2024-05-01T00:00:00Z"), "cut short")
    assert (record_in(tmp_path).status, data_files(tmp_path)) == ("failed", [])


def test_reasons_do_not_tell_secrets(tmp_path):
    url = "https://host/a.tif?sig=SECRET&se=2024"
    outcome = committer_in(tmp_path).fail(task_for(), f"{url} can't be read")
    assert "SECRET" not in (outcome.error or "")
    assert "SECRET" not in (tmp_path / "items" / "scene.json").read_text()


SQUARE = box(-110.8, 44.8, -110.6, 45.0)  # its centroid: 44.9 N, 110.7 W
SPLIT = MultiPolygon([box(179, -17, 180, -16), box(-180, -17, -179.9, -16)])


@pytest.mark.parametrize(
    ("partition", "scene", "folder"),
    [
        ("year", {"time": datetime(2022, 6, 1, tzinfo=UTC)}, "data/year=2022"),
        ("year", {}, "data/year=unknown"),
        ("h3", {"footprint": SQUARE}, "data/h3=832896fffffffff"),
        ("h3", {"footprint": SPLIT}, f"data/h3={h3.latlng_to_cell(-16.5, 179.5, 3)}"),
        ("h3", {}, "data/h3=unknown"),
    ],
)
def test_partitions_have_their_own_folders(tmp_path, partition, scene, folder):
    task = task_for(**scene)
    committer_in(tmp_path, partition=partition).succeed(task, HEADER, detections(1), {})
    (name,) = data_files(tmp_path)
    assert name.startswith(f"{folder}/scene-")
    assert record_in(tmp_path).data == name


def share(output):
    """Move a scene's rows into a file of several, as compact does; its key."""
    record = record_in(output)
    key = "data/part-0.parquet"
    (output / record.data).rename(output / key)
    Records(open_storage(str(output))).commit(replace(record, data=key), replace=True)
    return key


def test_a_shared_file_outlives_a_scene_that_is_replaced(tmp_path):
    committer = committer_in(tmp_path)
    committer.succeed(task_for(), HEADER, detections(3), {})
    assert own_file(record_in(tmp_path))
    shared = share(tmp_path)
    assert not own_file(record_in(tmp_path))
    newer = task_for(updated="2024-05-01T00:00:00Z")
    committer.succeed(newer, HEADER, detections(2), {})
    assert data_files(tmp_path) == sorted([record_in(tmp_path).data, shared])


def test_a_repeat_of_a_scene_in_a_shared_file_leaves_no_second_file(tmp_path):
    committer = committer_in(tmp_path)
    committer.succeed(task_for(), HEADER, detections(3), {})
    shared = share(tmp_path)
    committer.succeed(task_for(), HEADER, detections(3), {})
    assert data_files(tmp_path) == [record_in(tmp_path).data] == [shared]


def test_a_scene_is_finished_only_for_the_very_version(tmp_path):
    committer = committer_in(tmp_path)
    committer.fail(task_for(), "cut short")
    record = record_in(tmp_path)
    version = settings_for(tmp_path).scene_version(task_for())
    other = settings_for(tmp_path, "2").scene_version(task_for())
    assert finished(record, version, retry_failed=False)
    assert not finished(record, version, retry_failed=True)
    assert not finished(record, other, retry_failed=False)
    assert not finished(None, version, retry_failed=False)
    committer.succeed(task_for(), HEADER, detections(1), {})
    assert finished(record_in(tmp_path), version, retry_failed=True)


def test_scenes_written_by_several_threads_at_once_are_those_of_one(tmp_path):
    """As a coordinator writes them; in several zones, so that threads share transformations."""

    def write(output, threads):
        committer = committer_in(output)

        def one(number):
            header = replace(HEADER, crs=f"EPSG:{32610 + number % 3}")
            task = SceneTask(Scene(f"s{number}", "a.tif", f"s{number}"))
            return committer.succeed(task, header, detections(200 + number), {}).counts

        with ThreadPoolExecutor(threads) as pool:
            counts = list(pool.map(one, range(12)))
        assert list(Records(open_storage(str(output))).ids()) == sorted(
            f"s{number}" for number in range(12)
        )
        return counts, [
            (path, gpd.read_parquet(output / path).to_wkb()) for path in data_files(output)
        ]

    (one, files), (many, others) = write(tmp_path / "one", 1), write(tmp_path / "many", 4)
    assert one == many
    for (path, frame), (other, same) in zip(files, others, strict=True):
        assert path == other
        pd.testing.assert_frame_equal(frame, same)
