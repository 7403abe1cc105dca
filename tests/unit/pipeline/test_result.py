"""What a run gives back: rows from no, one or many files, and the exit code."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geosweep.catalog import Scene, open_storage
from geosweep.catalog.errors import OutputError
from geosweep.pipeline.result import Failure, Result
from tests.unit.pipeline.test_commit import (
    HEADER,
    SceneTask,
    committer_in,
    detections,
    settings_for,
)


def result_of(folder, rows, failures=(), unfinished=0):
    committer = committer_in(folder)
    storage = open_storage(str(folder))
    for number, count in enumerate(rows):
        task = SceneTask(Scene(f"scene{number}", f"{number}.tif", f"scene{number}"))
        committer.succeed(task, HEADER, detections(count), {})
    return Result(
        output=str(folder),
        counts={"windows_now": 10, "unfinished": unfinished},
        failures=list(failures),
        timings={"wall": 4.0, "read": 1.23456},
        engine="local",
        devices=["cpu"],
        _storage=storage,
        _schema=settings_for(folder).schema,
    )


@pytest.mark.parametrize("rows", [[], [0], [3], [2, 0, 5, 1]])
def test_all_three_views_hold_the_rows_of_all_files(tmp_path, rows):
    result = result_of(tmp_path, rows)
    table, frame, dataset = result.to_arrow(), result.to_geopandas(), result.dataset()
    assert len(table) == len(frame) == dataset.count_rows() == sum(rows)
    # The covering column serves readers of files; geopandas has no use for it.
    assert [*frame.columns, "bbox"] == table.column_names
    assert dataset.schema.names == table.column_names
    assert frame.crs == "EPSG:4326"
    assert frame.scene_id.nunique() == sum(count > 0 for count in rows)
    assert set(frame.geometry.geom_type) <= {"Polygon"}
    assert table.schema.field("datetime").type == pa.timestamp("us", tz="UTC")


def test_the_dataset_reads_only_what_is_asked_for(tmp_path):
    import pyarrow.dataset as pads

    dataset = result_of(tmp_path, [3, 5]).dataset()
    found = dataset.to_table(columns=["score"], filter=pads.field("scene_id") == "scene1")
    assert (found.num_rows, found.column_names) == (5, ["score"])


def test_what_is_not_on_a_disk_has_no_dataset_but_rows(tmp_path):
    result = result_of(tmp_path, [3])
    local = result._storage

    class Remote:
        def local_path(self, key):
            return None

        def get(self, key):
            return local.get(key)

        def list(self, prefix="", suffix="", *, sort=True):
            return local.list(prefix, suffix, sort=sort)

    result._storage = Remote()
    with pytest.raises(OutputError, match=r"not on a local disk; use to_arrow\(\)"):
        result.dataset()
    assert len(result.to_arrow()) == 3


def test_the_exit_code_tells_of_failed_and_of_missing_scenes(tmp_path):
    assert result_of(tmp_path, []).exit_code == 0
    assert result_of(tmp_path, [], [Failure("a", "cut short")]).exit_code == 1
    assert result_of(tmp_path, [], unfinished=1).exit_code == 1


def test_the_report_is_json_and_rounded(tmp_path):
    report = result_of(tmp_path, [1], [Failure("a", "cut short")]).report()
    assert json.loads(json.dumps(report)) == report
    assert report["timings"]["read"] == 1.235
    assert report["windows_per_second"] == 2.5
    assert report["failures"] == [{"scene_id": "a", "error": "cut short"}]


def test_files_written_are_read_by_anybody(tmp_path):
    result = result_of(tmp_path, [3])
    (file,) = result.dataset().files
    assert pq.read_table(file).num_rows == 3
