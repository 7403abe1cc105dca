"""Models that run out of memory: smaller batches, the same results, and the report says so."""

import logging

import numpy as np
import pytest
import torch

from geosweep.catalog.errors import DeviceMemoryError, ModelError
from geosweep.models import CropModel
from geosweep.pipeline import plan, predict_tile, run
from geosweep.pipeline.halving import Halving, Halvings, add_halvings, out_of_memory
from tests.cropmodels import tiny
from tests.detectors import PaintDetector
from tests.hungry import HungryDetector, HungryFilter
from tests.scenes import assert_sums, job_over, painted_scene

ROOM = 3
THREE = "tests.hungry:three"


def halving():
    return Halving("detector d", "windows", "get a larger one")


def doubled(calls, room=ROOM, error=torch.OutOfMemoryError):
    def work(batch):
        calls.append(len(batch))
        if len(batch) > room:
            raise error("CUDA out of memory.\nTried to allocate a lot")
        return batch * 2

    return work


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 13])
def test_parts_in_order_are_the_whole(count):
    calls, one = [], halving()
    batch = np.arange(count)
    parts = one.run(doubled(calls), batch)
    assert np.array_equal(np.concatenate(parts), batch * 2)
    assert len(parts) == (1 if count <= ROOM else sum(size <= ROOM for size in calls))


def test_what_did_not_fit_is_not_tried_again_and_is_told_once(caplog):
    calls, one = [], halving()
    work = doubled(calls)
    with caplog.at_level(logging.WARNING, "geosweep"):
        one.run(work, np.arange(8))
        one.run(work, np.arange(8))
    assert calls == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert one.take() == {"detector d": Halvings(2, 2)}
    assert one.take() == {}
    assert [record.message for record in caplog.records] == [
        "the detector d ran out of memory with 8 windows at a time; it goes on with 4",
        "the detector d ran out of memory with 4 windows at a time; it goes on with 2",
    ]


def test_one_that_is_too_many_is_a_sentence_and_the_model_lives_on():
    calls, one = [], halving()
    with pytest.raises(DeviceMemoryError) as caught:
        one.run(doubled(calls, room=0), np.arange(4))
    assert str(caught.value) == (
        "The detector d ran out of memory even with one of its windows at a time "
        "(CUDA out of memory.); get a larger one."
    )
    assert calls == [4, 2, 1]
    assert np.array_equal(np.concatenate(one.run(doubled(calls), np.arange(2))), [0, 2])


def test_the_memory_of_the_failed_try_is_free_before_the_next():
    """On a GPU the error's frames would hold the tensors that left no room."""
    alive = set()

    class Tensor:
        def __init__(self):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    def work(batch):
        assert not alive
        large = Tensor()
        large.itself = large  # as tensors of a graph may be
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        del large.itself
        return batch

    assert len(halving().run(work, np.arange(2))) == 2


def test_real_errors_of_too_little_memory_are_known():
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(10**15)
    with pytest.raises(MemoryError) as of_numpy:
        np.zeros(10**16)
    assert out_of_memory(of_torch.value)
    assert out_of_memory(of_numpy.value)
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `…`"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ModelError("the computer is out of memory"))


def test_other_errors_of_a_model_pass():
    with pytest.raises(ValueError, match="CUDA"):
        halving().run(doubled([], error=lambda text: ValueError(text[:4])), np.arange(8))


def test_halvings_add_up_by_model():
    one = {"a": Halvings(2, 4), "b": Halvings(1, 8)}
    assert add_halvings(one, {"a": Halvings(1, 2), "c": Halvings(1, 1)}) == {
        "a": Halvings(3, 2),
        "b": Halvings(1, 8),
        "c": Halvings(1, 1),
    }


class HungryCropModel(CropModel):
    def __init__(self, model):
        super().__init__(model=model.model, label_dict=model.label_dict, resize=model.resize)

    def classify(self, batch):
        if len(batch) > ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().classify(batch)


def test_predict_tile_goes_on_with_all_three_kinds_of_models(tmp_path):
    raster = painted_scene(tmp_path, 1)
    plain = predict_tile(raster, detector=PaintDetector(), crop_model=tiny(), batch_size=8)
    model = HungryCropModel(tiny())
    hungry, tiles = HungryDetector(ROOM), HungryFilter(ROOM)
    found = predict_tile(raster, detector=hungry, crop_model=model, tile_filter=tiles, batch_size=8)
    assert found.equals(plain)
    assert len(found) > 40
    assert hungry.tried[:3] == [8, 4, 2]
    assert max(hungry.tried[3:]) == 2
    with pytest.raises(DeviceMemoryError, match="choose smaller windows"):
        predict_tile(raster, detector=HungryDetector(0), batch_size=8)


def test_an_estimate_says_it_too(tmp_path):
    job = job_over([painted_scene(tmp_path, 0)], tmp_path, detector={"model": "tests.hungry:none"})
    with pytest.raises(DeviceMemoryError, match="tests/hungry ran out of memory even with one"):
        plan(job)
    job = job.model_copy(update={"detector": job.detector.model_copy(update={"model": THREE})})
    summary = plan(job)
    assert summary.seconds_per_window is not None and summary.seconds_per_window > 0


def test_a_run_says_it_in_its_report(tmp_path):
    raster = painted_scene(tmp_path, 1)
    job = job_over([raster], tmp_path / "out", detector="paint")
    plain = run(job, engine="local", progress=False)
    assert plain.report()["halvings"] == {}
    job = job_over([raster], tmp_path / "hungry", detector={"model": THREE, "batch_size": 8})
    result = run(job, engine="local", progress=False)
    assert result.halvings == {"detector tests/hungry": Halvings(2, 2)}
    assert result.report()["halvings"] == {"detector tests/hungry": {"times": 2, "batch_size": 2}}
    assert sorted(result.to_geopandas().geometry.to_wkb()) == sorted(
        plain.to_geopandas().geometry.to_wkb()
    )
    assert_sums(result.counts)
