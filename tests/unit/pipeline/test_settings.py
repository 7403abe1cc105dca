"""What is worked out of a job before any scene is touched."""

import shutil
from pathlib import Path

import pytest

from geosweep.catalog import Scene
from geosweep.pipeline import Job, JobError
from geosweep.pipeline.region import Region
from geosweep.pipeline.scene_reader import SceneTask
from geosweep.pipeline.settings import CPU_BATCH, GPU_BATCH, ModelFace, Settings

WEIGHTS = Path(__file__).parents[3] / "models" / "weights" / "geosweep-tree.safetensors"


def job(model="tests.detectors:paint", crops=(), detector=None, **blocks):
    return Job.from_dict(
        {
            "source": {"stac": "a.json"},
            "output": {"path": "out"},
            "detector": {"model": model} | (detector or {}),
            "crop_models": list(crops),
            **blocks,
        }
    )


def test_labels_and_versions_of_users_own_models_are_found():
    settings = Settings.resolve(
        job(crops=[{"name": "kind", "model": "tests.cropmodels:tiny", "scores": True}])
    )
    assert settings.schema.labels == ("red", "blue")
    assert settings.crop_classes == {"kind": 2}
    assert set(settings.models) == {"detector", "kind"}
    assert {"kind_label", "kind_score", "kind_scores"} <= set(settings.schema.arrow.names)


def test_a_model_under_the_wrong_key_is_refused():
    with pytest.raises(JobError, match="not a crop model, so it can't stand under crop_models"):
        Settings.resolve(job(crops=[{"model": "geosweep/tree"}]))


def test_the_same_weights_elsewhere_give_the_same_rows_and_the_same_output(tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b" / "c.safetensors"
    second.parent.mkdir()
    for path in (first, second):
        shutil.copyfile(WEIGHTS, path)
    one, two = (Settings.resolve(job(str(path))) for path in (first, second))
    assert one.fingerprint == two.fingerprint
    # Of a row's id, this is all that is of the model.
    assert one.schema.model_version == two.schema.model_version


def test_relative_paths_are_made_absolute_for_actors(tmp_path, monkeypatch):
    shutil.copyfile(WEIGHTS, tmp_path / "a.safetensors")
    monkeypatch.chdir(tmp_path)
    settings = Settings.resolve(job("a.safetensors"))
    assert settings.job.detector.model == str((tmp_path / "a.safetensors").resolve())
    assert settings.job.output.path == str((tmp_path / "out").resolve())
    remote = Settings.resolve(job(output={"path": "s3://bucket/out"}))
    assert remote.job.output.path == "s3://bucket/out"


def test_batches_suit_the_device_unless_the_job_says():
    face = ModelFace("m", "1", ("a",))
    settings = Settings.build(job(), face, {})
    assert (settings.batch_size("cpu"), settings.batch_size("cuda:0")) == (CPU_BATCH, GPU_BATCH)
    assert settings.batch_size("cpu", cores=2) == CPU_BATCH
    assert (
        settings.batch_size("cpu", cores=64) == 128
    )  # a window for each thread, and one that waits
    assert settings.batch_size("cuda:0", cores=64) == GPU_BATCH
    asked = Settings.build(job(detector={"batch_size": 5}), face, {})
    assert (asked.batch_size("cpu", cores=64), asked.batch_size("cuda:0")) == (5, 5)


def test_a_scenes_version_changes_with_its_pixels_its_limits_and_the_job():
    face = ModelFace("m", "1", ("a",))
    settings = Settings.build(job(), face, {})
    other = Settings.build(job(windows={"size": 500}), face, {})
    newer = Settings.build(job(), ModelFace("m", "2", ("a",)), {})

    def task(href="a.tif", region=None, **scene):
        return SceneTask(Scene("s", href, "s", **scene), region or Region())

    versions = [
        settings.scene_version(task()),
        settings.scene_version(task(updated="2024-01-01T00:00:00Z")),
        settings.scene_version(task(checksum="abc")),
        settings.scene_version(task("b.tif")),
        other.scene_version(task()),
        newer.scene_version(task()),
    ]
    assert len(set(versions)) == len(versions)
    assert settings.scene_version(task()) == versions[0]
