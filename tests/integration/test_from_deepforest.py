"""The snippets of docs/from-deepforest.md run as they stand, on DeepForest's sample data."""

import shutil
import sys
from types import ModuleType

import geopandas as gpd
import pytest
from PIL import Image

from geosweep.models import CropModel, Evaluation
from geosweep.models._annotations import deepforest_data
from tests.docs import blocks

SAMPLES = ("OSBS_029.tif", "OSBS_029.csv", "SOAP_061.png", "testfile_multi.csv")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_snippet_runs(tmp_path, monkeypatch):
    for name in SAMPLES:
        shutil.copy(deepforest_data() / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    # A module of its own, as a user's script is one.
    script = ModuleType("from_deepforest")
    monkeypatch.setitem(sys.modules, "from_deepforest", script)
    snippets = [block for block in blocks("from-deepforest.md") if block.language == "python"]
    assert len(snippets) > 8
    for block in snippets:
        padding = "\n" * (block.line - 1)  # so that a traceback names the page's line
        exec(compile(padding + block.text, "docs/from-deepforest.md", "exec"), vars(script))

    def made(name):
        return vars(script)[name]

    # What the page promises is there.
    assert len(made("tiles")) > 61
    assert (tmp_path / "tiles" / "OSBS_029.csv").is_file()
    assert made("problems") == []
    columns = ["xmin", "ymin", "xmax", "ymax"]
    drift = made("in_pixels")[columns] - made("labels")[columns]
    assert drift.abs().to_numpy().max() < 1e-6
    assert made("trained").path.is_file()
    assert isinstance(made("evaluation"), Evaluation)
    assert made("evaluation").f1 > 0.5
    assert isinstance(made("crop_model"), CropModel)
    assert made("crop_model").labels == ("Alive", "Dead")
    assert set(made("trees")["state_label"]) <= {"Alive", "Dead"}
    assert len(gpd.read_file("trees.gpkg")) == len(made("read_output")("out")) > 20
    assert (tmp_path / "map.html").exists() or (tmp_path / "out" / "map.html").exists()
    for picture in ("batch.png", "quicklook.png", "plots/precision_recall.png"):
        assert min(Image.open(picture).size) > 100
