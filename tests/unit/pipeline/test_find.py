"""The tile filter before the detector: what is skipped, what is kept in doubt, and that all is counted."""

import numpy as np
import pytest

from geosweep.catalog import Records, open_storage
from geosweep.models import TileFilter
from geosweep.pipeline import JobError, ModelError, predict_tile, run
from tests.detectors import PaintDetector, grey, paint_patches
from tests.rasters import write_raster
from tests.scenes import assert_sums, job_over, painted_scene
from tests.tilefilters import PaintFilter, ShortFilter, WaryFilter

SMALL = {"size": 100, "overlap": 0.2}


def filtered(factory="paint", **keys):
    return {"tile_filter": {"model": f"tests.tilefilters:{factory}"} | keys, "windows": SMALL}


def count_by_hand(image, size, shared):
    """What the painted filter says of each window, without any of the pipeline."""
    high, wide = image.shape[1:]
    verdicts = []
    for y in [*range(0, high - size, size - shared), high - size]:
        for x in [*range(0, wide - size, size - shared), wide - size]:
            window = image[:, y : y + size, x : x + size]
            red, blue = (np.equal(window.T, c).all(-1).any() for c in ((255, 0, 0), (0, 0, 255)))
            verdicts.append("both" if red and blue else "red" if red else "blue" if blue else "no")
    return {kind: verdicts.count(kind) for kind in ("both", "red", "blue", "no")}


def test_only_windows_that_are_sure_to_be_empty_are_skipped_and_each_is_counted(tmp_path):
    import rasterio

    raster = painted_scene(tmp_path, 1)
    plain = run(job_over([raster], tmp_path / "a", windows=SMALL), engine="local", progress=False)
    job = job_over([raster], tmp_path / "b", **filtered())
    result = run(job, engine="local", progress=False)
    with rasterio.open(raster) as dataset:
        truth = count_by_hand(dataset.read(), 100, 20)
    assert min(truth.values()) > 0
    counts = result.counts
    assert counts["windows_skipped_filter"] == truth["no"]
    assert counts["windows_uncertain"] == truth["blue"]
    assert counts["windows_empty_and_something"] == truth["both"]
    assert counts["windows_processed"] == counts["windows"] - truth["no"]
    assert counts["windows_now"] == counts["windows"]
    assert_sums(counts)
    record = Records(open_storage(tmp_path / "b")).read("scene1")
    assert record.counts["windows_skipped_filter"] == truth["no"]
    assert record.models["tile_filter"]
    assert {"filter", "detect"} <= set(record.timings)
    # The filter keeps whatever holds paint, so it changes no row.
    first, second = (r.to_arrow().sort_by("detection_id") for r in (plain, result))
    assert first.equals(second)
    assert first.num_rows > 50


def test_a_filter_that_is_wrong_costs_just_what_its_windows_hold(tmp_path):
    data = paint_patches(grey(400, 400), [(20, 20, 40, 40)], "red")
    paint_patches(data, [(320, 320, 340, 340)], "blue")
    raster = write_raster(tmp_path / "a.tif", data)

    class Blind(PaintFilter):
        def _one(self, image):
            red, blue, empty = super()._one(image)
            return red, blue, empty if red > 0.5 else 0.99

    found = predict_tile(raster, detector=PaintDetector(), tile_filter=Blind(), patch_size=100)
    assert list(found.label) == ["red"]


def test_the_threshold_is_the_jobs_or_else_the_files_own(tmp_path):
    raster = write_raster(tmp_path / "a.tif", grey(200, 200))

    def skipped(name, **keys):
        job = job_over([raster], tmp_path / name, **filtered(**keys))
        return run(job, engine="local", progress=False).counts["windows_skipped_filter"]

    assert skipped("a") == 9
    assert skipped("b", factory="wary") == 0
    assert skipped("c", factory="wary", empty_threshold=0.95) == 9
    assert skipped("d", empty_threshold=0.96) == 0


def test_filter_and_threshold_are_part_of_the_fingerprint(tmp_path):
    from geosweep.pipeline.settings import Settings

    def mark(**blocks):
        return Settings.resolve(job_over(["a.tif"], tmp_path, **blocks)).fingerprint

    marks = {
        mark(windows=SMALL),
        mark(**filtered()),
        mark(**filtered("wary")),
        mark(**filtered(empty_threshold=0.5)),
    }
    assert len(marks) == 4


def test_a_real_filter_sees_what_the_detector_sees(tmp_path):
    """The scores are those of the detector's very pixels: resampled, and without padding."""
    seen = []

    class Watched(PaintFilter):
        def scores(self, images):
            seen.append(images)
            return super().scores(images)

    class Watching(PaintDetector):
        def detect(self, images):
            seen.append(images)
            return super().detect(images)

    raster = write_raster(tmp_path / "a.tif", paint_patches(grey(90, 150), [(20, 20, 60, 60)]))
    predict_tile(raster, detector=Watching(), tile_filter=Watched(), resolution=0.2)
    filtered_, detected = seen
    assert filtered_.shape == detected.shape == (1, 3, 45, 75)
    assert np.array_equal(filtered_, detected)


def test_a_saved_filter_runs_from_its_file(tmp_path):
    raster = write_raster(tmp_path / "a.tif", grey(200, 200))
    path = TileFilter(("red", "blue"), empty_threshold=0.0).save(tmp_path / "filter.safetensors")
    job = job_over([raster], tmp_path / "out", tile_filter={"model": str(path)}, windows=SMALL)
    counts = run(job, engine="local", progress=False).counts
    # From a score of 0 on every window is sure to be empty, unless a label is seen in it.
    assert counts["windows_skipped_filter"] + counts["windows_empty_and_something"] == 9
    assert_sums(counts)


def test_models_that_are_no_tile_filters_are_refused(tmp_path):
    raster = write_raster(tmp_path / "a.tif", grey(50, 50))
    job = job_over([raster], tmp_path, tile_filter={"model": "geosweep/tree"})
    with pytest.raises(JobError, match="not a tile filter, so it can't stand under tile_filter"):
        run(job, engine="local", progress=False)
    with pytest.raises(ModelError, match="is no tile filter, it lacks empty_threshold, scores"):
        predict_tile(raster, detector=PaintDetector(), tile_filter=PaintDetector())
    with pytest.raises(ModelError, match="gave 0 rows of scores for 1 windows"):
        predict_tile(raster, detector=PaintDetector(), tile_filter=ShortFilter())
    with pytest.raises(JobError, match="empty_threshold"):
        predict_tile(
            raster, detector=PaintDetector(), tile_filter=WaryFilter(), empty_threshold=1.5
        )


def test_a_filter_for_other_objects_is_told_in_the_log(tmp_path, caplog):
    class ForBirds(PaintFilter):
        labels = ("Bird", "Fish", "empty")

    raster = write_raster(tmp_path / "a.tif", grey(50, 50))
    predict_tile(raster, detector=PaintDetector(), tile_filter=ForBirds())
    assert "knows Bird, Fish, empty, and detector tests/paint looks for red, blue" in caplog.text


def test_the_table_names_what_the_filter_did(tmp_path):
    from typer.testing import CliRunner

    from geosweep.pipeline.cli import app

    raster = painted_scene(tmp_path, 1)
    arguments = ["detect", str(raster), "-o", str(tmp_path / "out"), "--window", "100"]
    arguments += ["--detector", "tests.detectors:paint", "--tile-filter", "tests.tilefilters:paint"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    text = " ".join(shown.stdout.split())
    assert "empty by the tile filter" in text
    assert "uncertain" in text
