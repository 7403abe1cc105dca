"""A job's models as it asks for them."""

import pytest

from geosweep.catalog.errors import ModelError
from geosweep.pipeline.jobs_models import load_crop_model_for
from geosweep.pipeline.settings import ModelFace, Settings
from tests.scenes import job_over


def settings_for(tmp_path, **crop_model):
    spec = {"model": "tests.cropmodels:tiny", **crop_model}
    job = job_over([tmp_path / "a.tif"], tmp_path / "out", crop_models=[spec])
    face = ModelFace("m", "1", ("a",))
    return Settings.build(job, face, {"cropmodel": face})


def test_crop_models_have_the_jobs_engine_where_they_compute(tmp_path):
    pytest.importorskip("onnxruntime")
    settings = settings_for(tmp_path, backend="onnx")
    assert load_crop_model_for(settings, "cropmodel").has_engine
    # Croppers only prepare crops.
    assert not load_crop_model_for(settings, "cropmodel", computes=False).has_engine
    assert not load_crop_model_for(settings_for(tmp_path), "cropmodel").has_engine


def test_a_precision_that_the_engine_has_not_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    settings = settings_for(tmp_path, backend="onnx", precision="bf16")
    with pytest.raises(ModelError, match="computes in fp32"):
        load_crop_model_for(settings, "cropmodel")
    load_crop_model_for(settings, "cropmodel", computes=False)


def test_bands_that_do_not_fit(tmp_path):
    with pytest.raises(ModelError, match=r"takes 3 bands, and crop_models\.bands names 2"):
        load_crop_model_for(settings_for(tmp_path, bands=[1, 2]), "cropmodel")
