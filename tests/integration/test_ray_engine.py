"""The Ray engine on a real cluster: same rows as in process, and no scene lost to a dying actor."""

import pytest

from geosweep.catalog import Records, open_storage
from geosweep.pipeline import run
from tests.scenes import assert_sums, job_over, painted_scene

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def sorted_rows(result):
    return result.to_arrow().sort_by("detection_id")


def test_both_engines_give_the_same_rows_to_the_byte(tmp_path):
    rasters = [painted_scene(tmp_path, number, step_m=100) for number in range(4)]
    crop = {"crop_models": [{"model": "tests.cropmodels:tiny", "expand": 6, "scores": True}]}
    by_ray = run(job_over(rasters, tmp_path / "ray", **crop), engine="ray", progress=False)
    local = run(job_over(rasters, tmp_path / "local", **crop), engine="local", progress=False)
    assert sorted_rows(by_ray).equals(sorted_rows(local))
    assert by_ray.counts == local.counts
    assert by_ray.counts["detections"] > 100
    assert by_ray.counts["duplicates_owned"] > 0
    assert set(by_ray.to_geopandas()["cropmodel_label"]) <= {"dark", "light"}
    assert_sums(by_ray.counts)


def test_actor_numbers_and_batch_size_do_not_change_rows(tmp_path):
    rasters = [painted_scene(tmp_path, number) for number in range(2)]
    one = run(job_over(rasters, tmp_path / "one"), engine="ray", progress=False)
    many = job_over(
        rasters,
        tmp_path / "many",
        detector="paint",
        cluster={"readers": 2, "detectors": 2, "scenes_in_flight": 4},
    )
    many = many.model_copy(update={"detector": many.detector.model_copy(update={"batch_size": 3})})
    two = run(many, engine="ray", progress=False)
    assert sorted_rows(one).equals(sorted_rows(two))


def test_unreadable_scenes_fail_by_name_and_the_rest_is_complete(tmp_path):
    good = [painted_scene(tmp_path, number) for number in range(2)]
    cut = painted_scene(tmp_path, 7)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    text = tmp_path / "notes.tif"
    text.write_text("not a raster")
    job = job_over([*good, cut, text, tmp_path / "missing.tif"], tmp_path / "out")
    result = run(job, engine="ray", progress=False)
    assert result.exit_code == 1
    reasons = {failure.scene_id: failure.error for failure in result.failures}
    assert sorted(reasons) == ["missing", "notes", "scene7"]
    assert "does not exist" in reasons["missing"]
    assert "scene7.tif can't be read" in reasons["scene7"]
    assert result.counts["succeeded"] == 2
    assert result.counts["windows_failed"] == 12
    assert_sums(result.counts)


def test_a_detector_that_dies_now_and_then_costs_nothing(tmp_path):
    rasters = [painted_scene(tmp_path, number, poison=number == 1) for number in range(3)]
    clean = run(job_over(rasters, tmp_path / "clean"), engine="local", progress=False)
    with deaths_told(tmp_path / "deaths"):
        result = run(
            job_over(rasters, tmp_path / "out", detector="poisoned_twice"),
            engine="ray",
            progress=False,
        )
    assert (tmp_path / "deaths").read_text() == "xx"
    assert result.failures == []
    assert sorted(result.to_geopandas().geometry.to_wkb()) == sorted(
        clean.to_geopandas().geometry.to_wkb()
    )
    assert_sums(result.counts)


def test_what_the_cluster_had_is_returned(tmp_path):
    import time

    import ray

    before = ray.cluster_resources()
    run(job_over([painted_scene(tmp_path, 0)], tmp_path / "out"), engine="ray", progress=False)
    assert ray.is_initialized()
    for _ in range(100):
        if ray.available_resources().get("CPU") == before["CPU"]:
            break
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == before["CPU"]


def test_models_that_fail_to_load_end_the_run_with_their_own_sentence(tmp_path):
    from geosweep.catalog.errors import ModelError

    job = job_over([painted_scene(tmp_path, 0)], tmp_path / "out", detector="broken_in_actors")
    with pytest.raises(ModelError, match="weights are gone"):
        run(job, engine="ray", progress=False)
    assert list(Records(open_storage(tmp_path / "out")).ids()) == []


class deaths_told:
    """Tell workers, which don't have our environment, where to count deaths."""

    def __init__(self, path):
        self._path = path

    def __enter__(self):
        from tests import detectors

        detectors.DEATHS_POINTER.write_text(str(self._path))

    def __exit__(self, *_):
        from tests import detectors

        detectors.DEATHS_POINTER.unlink(missing_ok=True)
