"""The sum over a plan's records: those of the plan alone, each read once."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from geosweep.catalog import Records, open_storage
from geosweep.catalog.errors import OutputError
from geosweep.catalog.geoparquet import read_keys
from geosweep.pipeline.scene_reader import SceneTask
from geosweep.pipeline.tally import sum_up
from tests.unit.pipeline.test_commit import committer_in, settings_for
from tests.unit.pipeline.test_compact import commit, scene_at


def plan_of(*names):
    return SimpleNamespace(count=len(names), ids=lambda: iter(names))


def test_the_sum_is_over_the_plan_and_the_snapshot_over_all(tmp_path, monkeypatch):
    committer = committer_in(tmp_path)
    for number, rows in enumerate([3, 0, 5, 7]):
        commit(committer, scene_at(number), rows)
    committer.fail(SceneTask(scene_at(4)), "broken")
    storage = open_storage(str(tmp_path))
    read: Counter[str] = Counter()
    get = type(storage).get
    monkeypatch.setattr(
        type(storage), "get", lambda self, key: (read.update([key]), get(self, key))[1]
    )
    plan = plan_of("s4", "s0", "s1", "s2", "missing")
    result = sum_up(plan, storage, settings_for(tmp_path), "local")
    counts = result.counts
    assert [counts[name] for name in ("scenes", "succeeded", "empty", "failed")] == [5, 2, 1, 1]
    assert (counts["unfinished"], counts["detections"]) == (1, 8)
    assert [(failure.scene_id, failure.error) for failure in result.failures] == [("s4", "broken")]
    assert {key: n for key, n in read.items() if key.startswith("items/")} == {
        f"items/s{number}.json": 1 for number in range(5)
    }
    snapshot = [name for _, name in read_keys(tmp_path / "items.parquet")]
    assert snapshot == [f"s{number}" for number in range(5)]
    assert result.to_arrow().num_rows == 8


def test_a_record_that_is_none_is_named(tmp_path):
    commit(committer_in(tmp_path), scene_at(0), 3)
    storage = open_storage(str(tmp_path))
    item = Records(storage).read_item("s0")
    assert item is not None
    storage.put("items/s0.json", b'{"id": "s0", "properties": {}}')
    with pytest.raises(OutputError, match=r"items/s0\.json is not a geosweep record"):
        sum_up(plan_of("s0"), storage, settings_for(tmp_path), "local")
