"""The dataset that passes over dead rows, however it is asked."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from geosweep.pipeline.livedataset import LiveFile, live_dataset

SCHEMA = pa.schema([("scene_id", pa.string()), ("v", pa.int64())])
SCORE = pads.field("v")


def written(folder, name, scenes, **options):
    path = folder / f"{name}.parquet"
    table = pa.table({"scene_id": scenes, "v": list(range(len(scenes)))}, schema=SCHEMA)
    pq.write_table(table, path, **options)
    return path


@pytest.fixture
def dataset(tmp_path):
    """In the first file, y is dead; its rows are in the second."""
    first = written(tmp_path, "first", ["x", "x", "y"])
    second = written(tmp_path, "second", ["y", "y", "z"])
    return live_dataset([LiveFile(first, frozenset({"x"})), LiveFile(second, None)], SCHEMA)


LIVE = [("x", 0), ("x", 1), ("y", 0), ("y", 1), ("z", 2)]


def pairs(table):
    return sorted(zip(table["scene_id"].to_pylist(), table["v"].to_pylist(), strict=True))


def test_it_has_the_columns_and_the_rows_of_an_output(dataset):
    assert isinstance(dataset, pads.Dataset)
    assert dataset.schema == SCHEMA
    assert dataset.to_table().schema == SCHEMA
    assert pairs(dataset.to_table()) == LIVE
    assert dataset.count_rows() == 5
    assert sum(batch.num_rows for batch in dataset.to_batches()) == 5
    assert dataset.head(9).num_rows == 5
    assert set(pairs(dataset.take([0, 4]))) < set(LIVE)


def test_filters_and_columns_come_on_top(dataset):
    assert pairs(dataset.to_table(filter=SCORE > 1)) == [("z", 2)]
    assert dataset.count_rows(filter=SCORE > 1) == 1
    assert sorted(dataset.to_table(columns=["v"])["v"].to_pylist()) == [0, 0, 1, 1, 2]
    assert sum(dataset.to_table(columns={"w": SCORE + 1})["w"].to_pylist()) == 9
    fewer = dataset.filter(SCORE < 2).filter(pads.field("scene_id") == "y")
    assert pairs(fewer.to_table()) == [("y", 0), ("y", 1)]
    assert fewer.count_rows(filter=SCORE == 1) == 1


def test_sorts_and_joins_pass_over_dead_rows_too(dataset):
    assert dataset.sort_by("v").to_table()["v"].to_pylist() == [0, 0, 1, 1, 2]
    names = pads.dataset(pa.table({"scene_id": ["y"], "name": ["Y"]}))
    joined = dataset.join(names, "scene_id", join_type="inner").to_table()
    assert pairs(joined) == [("y", 0), ("y", 1)]


def test_it_may_travel(dataset):
    there = pickle.loads(pickle.dumps(dataset.filter(SCORE < 2)))
    assert there.schema == SCHEMA
    assert pairs(there.to_table()) == LIVE[:4]


def test_without_dead_rows_it_is_a_plain_dataset(tmp_path):
    file = LiveFile(written(tmp_path, "one", ["x", "y"]), None)
    dataset = live_dataset([file], SCHEMA)
    assert (type(dataset), dataset.count_rows()) == (pads.FileSystemDataset, 2)
    assert live_dataset([], SCHEMA).count_rows() == 0


def test_row_groups_that_a_filter_rules_out_are_not_read(tmp_path):
    path = written(
        tmp_path, "one", ["x"] * 100 + ["y"] * 100, row_group_size=100, compression="none",
        use_dictionary=False,
    )  # fmt: skip
    group = pq.read_metadata(path).row_group(0)
    start, end = group.column(1).data_page_offset, group.column(1).total_compressed_size
    content = bytearray(path.read_bytes())
    content[start : start + end] = b"\xff" * end
    path.write_bytes(content)
    dataset = live_dataset([LiveFile(path, frozenset({"x", "y"}))], SCHEMA)
    assert dataset.to_table(filter=SCORE >= 100).num_rows == 100
    with pytest.raises((OSError, pa.ArrowException)):
        dataset.to_table()
