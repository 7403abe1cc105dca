"""What the processes of a run carry: torch only where a model needs it."""

import psutil
import pytest

from geosweep.catalog import open_storage
from geosweep.pipeline.driver import RayEngine
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.runner import claim
from geosweep.pipeline.settings import Settings
from tests.scenes import job_over, painted_scene

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def with_torch(kind):
    """Whether the processes of a kind of actor have loaded torch's library."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name().startswith(f"ray::{kind}"[:15]):
                found.add(any("libtorch" in part.path for part in process.memory_maps()))
        except psutil.NoSuchProcess:
            continue
    return found


def test_torch_is_where_a_model_needs_it(tmp_path):
    crop = {"crop_models": [{"model": "tests.cropmodels:tiny"}]}
    job = job_over([painted_scene(tmp_path, 0)], tmp_path / "out", **crop)
    settings, storage = Settings.resolve(job), open_storage(job.output.path)
    claim(storage, settings, overwrite=False)
    plan = ScenePlan(job, settle_plan(job, storage))
    with RayEngine(settings, storage) as engine:
        assert [outcome.status for outcome in engine.sweep(plan.tasks())] == ["succeeded"]
        assert {kind: with_torch(kind) for kind in ("Coordinator", "Reader", "DetectorActor")} == {
            "Coordinator": {False},
            "Reader": {False},
            "DetectorActor": {False},  # that of the tests does without
        }
        assert with_torch("Cropper") == with_torch("Classifier") == {True}
