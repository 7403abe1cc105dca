"""What is written is read back, here and by DeepForest."""

import json

import numpy as np
import pandas as pd
import pytest

from geosweep.catalog.errors import AnnotationError, OutputError
from geosweep.models import annotation_frame, read_annotations, write_annotations
from tests.rasters import textured, write_raster

BOX = ["xmin", "ymin", "xmax", "ymax"]


@pytest.fixture
def frame(tmp_path):
    for name in ("a.png", "b.png"):
        write_raster(tmp_path / name, textured(80, 100), driver="PNG", crs=None)
    return annotation_frame(
        ["a.png", "a.png", "b.png"],
        [[10, 20, 30, 50], [40.5, 8, 60, 20.25], [0, 0, 0, 0]],
        ["Tree", "Dead, half", None],
        root_dir=tmp_path,
    )


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_round_trip(frame, tmp_path, suffix):
    path = write_annotations(frame, tmp_path / "deep" / f"x.{suffix}")
    back = read_annotations(path, root_dir=tmp_path)
    pd.testing.assert_frame_equal(back, frame)
    assert back.attrs == frame.attrs
    # The unsorted and the relabelled, too.
    other = frame.iloc[::-1].reset_index(drop=True)
    other["label"] = other["label"].replace({"Tree": "Oak"})
    back = read_annotations(write_annotations(other, tmp_path / f"y.{suffix}"))
    key = ["image_path", *BOX]
    pd.testing.assert_frame_equal(
        pd.DataFrame(back).sort_values(key, ignore_index=True),
        pd.DataFrame(other).sort_values(key, ignore_index=True),
    )


def test_deepforest_reads_it(frame, tmp_path):
    from deepforest.utilities import read_file

    theirs = read_file(str(write_annotations(frame, tmp_path / "x.csv")))
    np.testing.assert_array_equal(theirs[BOX], frame[BOX])
    assert theirs["label"].tolist() == ["Tree", "Dead, half", "Dead, half"]
    theirs = read_file(str(write_annotations(frame, tmp_path / "x.json")))
    np.testing.assert_array_equal(theirs.geometry.bounds, frame[BOX].iloc[:2])
    assert theirs["label"].tolist() == ["Tree", "Dead, half"]


def test_coco_holds_sizes_and_areas(frame, tmp_path):
    content = json.loads(write_annotations(frame, tmp_path / "x.json").read_text())
    assert [(i["file_name"], i["width"], i["height"]) for i in content["images"]] == [
        ("a.png", 100, 80),
        ("b.png", 100, 80),
    ]
    assert [a["area"] for a in content["annotations"]] == [600, 19.5 * 12.25]


def test_mistakes(frame, tmp_path):
    with pytest.raises(AnnotationError, match=r"x\.txt has no known suffix"):
        write_annotations(frame, tmp_path / "x.txt")
    with pytest.raises(AnnotationError, match="no column 'label'"):
        write_annotations(frame.drop(columns="label"), tmp_path / "x.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        write_annotations(frame, tmp_path / "file" / "x.csv")
