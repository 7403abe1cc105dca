"""Scenes of one asset for each band: the same rows as one raster gives, through the whole job."""

import json

import numpy as np
import pytest
import rasterio

from geosweep.catalog import Records, open_storage
from geosweep.catalog.validate import validate_output
from geosweep.pipeline import Job, plan, run
from geosweep.pipeline.outputs import open_output
from geosweep.pipeline.quicklook import write_quicklook
from tests.cropmodels import brightness
from tests.detectors import grey, paint_patches
from tests.rasters import write_raster
from tests.scenes import assert_sums, stac_items
from tests.servers import range_server

SIZE = 700
COG = {"driver": "COG", "compress": "DEFLATE", "blocksize": 128}
RGB = ["red", "green", "blue"]
LATTICE = [(x, y) for x in range(20, 600, 150) for y in range(20, 600, 150)]


def by_name():
    """A crop model whose weights name its bands, as those trained on Sentinel-2 do."""
    return brightness(("nir", "red"), limit=0.3)


def painted(seed=0):
    """Red, green, blue and near-infrared, in which some patches are bright; and those patches."""
    rng = np.random.default_rng(seed)
    image, infrared, answers = grey(SIZE, SIZE, seed), np.full((1, SIZE, SIZE), 20, np.uint8), {}
    for x, y in LATTICE:
        wide, high = (2 * rng.integers(10, 50, 2)).tolist()
        box, bright = (x, y, x + wide, y + high), rng.random() < 0.5
        paint_patches(image, [box], "red")
        infrared[0, y : y + high, x : x + wide] = 230 if bright else 60
        answers[box] = "high" if bright else "low"
    return np.concatenate([image, infrared]), answers


def whole(folder, image, name="whole"):
    path = write_raster(folder / f"{name}.tif", image, **COG)
    return {"image": path}


def split(folder, image, name="part", factor=1):
    """One file for each band; near-infrared `factor` times as coarse."""
    with rasterio.open(whole(folder, image, "grid")["image"]) as grid:
        transform = grid.transform
    paths = {}
    for band, pixels in zip([*RGB, "nir"], image, strict=True):
        step = factor if band == "nir" else 1
        paths[band] = write_raster(
            folder / f"{name}-{band}.tif",
            pixels[None, ::step, ::step],
            transform=transform @ rasterio.Affine.scale(step),
            **COG,
        )
    return paths


def job_over(folder, assets, bands, *, name, crop_bands=None, source=None, **blocks):
    items = stac_items(folder / f"{name}.json", assets)
    crop = {"name": "nir", "model": "tests.cropmodels:near_infrared", "bands": crop_bands}
    return Job.from_dict(
        {
            "source": {"stac": str(items), "bands": bands, **(source or {})},
            "windows": {"size": 190, "overlap": 0.5},
            "detector": {"model": "tests.detectors:paint"},
            "crop_models": [crop] if crop_bands else [],
            "output": {"path": str(folder / name)},
            **blocks,
        }
    )


def rows_of(result):
    frame = result.to_geopandas().drop(columns=["detection_id", "scene_id", "image_path"])
    return frame.sort_values(["xmin", "ymin"]).reset_index(drop=True)


def assert_right(result, answers):
    found = {
        tuple(int(v) for v in (r.xmin, r.ymin, r.xmax, r.ymax)): r.nir_label
        for r in rows_of(result).itertuples()
    }
    assert found == answers


@pytest.mark.parametrize("factor", [1, 2])
def test_one_file_and_one_for_each_band_give_the_same_rows(tmp_path, factor):
    image, answers = painted()
    one = job_over(tmp_path, {"a": whole(tmp_path, image)}, [1, 2, 3], name="one", crop_bands=[4])
    many = job_over(
        tmp_path, {"a": split(tmp_path, image, factor=factor)}, RGB, name="many", crop_bands=["nir"]
    )
    results = [run(job, engine="local", progress=False) for job in (one, many)]
    first, second = map(rows_of, results)
    # Coarser near-infrared is as sure of itself here: the patches are painted by even numbers.
    assert first.equals(second)
    assert_right(results[1], answers)
    counts = [dict(result.counts) for result in results]
    # Files of one band each compress otherwise, and a coarser one has fewer pixels.
    assert all(each.pop("stored_bytes") > 0 for each in counts)
    decoded = [each.pop("decoded_bytes") for each in counts]
    assert decoded[1] == decoded[0] * (3 + 1 / factor**2) / 4
    assert counts[0] == counts[1]
    assert_sums(results[1].counts)
    summaries = [plan(job, measure=False) for job in (one, many)]
    assert summaries[0].pixels == summaries[1].pixels
    assert summaries[1].bytes == round(summaries[0].bytes * (3 + 1 / factor**2) / 4)
    # What the record says, a reader gets back, in order.
    record = Records(open_storage(tmp_path / "many")).read("a")
    assert list(record.scene.bands) == [*RGB, "nir"]
    assert record.scene.bands["nir"].href.endswith("part-nir.tif")
    assert record.scene.href == record.scene.bands["red"].href
    assert record.scene.asset == "red"
    assert run(many, engine="local", progress=False).counts["scenes_now"] == 0
    storage, collection = open_output(tmp_path / "many")
    checked = validate_output(storage, collection, fetch_schemas=False)
    assert checked.ok, checked.problems
    # A new file of any band makes another version of the scene.
    with rasterio.open(tmp_path / "part-nir.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.write(dataset.read() // 2)
    assert run(many, engine="local", progress=False).counts["scenes_now"] == 1


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_both_engines_agree_on_bands_that_the_weights_name(tmp_path):
    items = {}
    for seed in range(2):
        image, _ = painted(seed)
        items[f"s{seed}"] = split(tmp_path, image, f"s{seed}", factor=2)
    crops = [
        {"name": "named", "model": "tests.integration.test_band_assets:by_name", "scores": True},
        {"name": "nir", "model": "tests.cropmodels:near_infrared", "bands": ["nir"], "expand": 30},
    ]
    blocks = {"crop_models": crops, "merge": {"scenes": "none"}}
    results = [
        run(job_over(tmp_path, items, RGB, name=engine, **blocks), engine=engine, progress=False)
        for engine in ("ray", "local")
    ]
    assert [result.failures for result in results] == [[], []]
    first, second = (result.to_arrow().sort_by("detection_id") for result in results)
    assert first.num_rows == 2 * len(LATTICE)
    assert first.equals(second)
    assert results[0].counts == results[1].counts


def test_bad_files_fail_their_scene_by_the_band_and_the_others_go_on(tmp_path):
    image, answers = painted()
    items = {name: split(tmp_path, image, name) for name in ("good", "gone", "short", "else")}
    items["gone"]["blue"].unlink()
    short = items["short"]["green"]
    short.write_bytes(short.read_bytes()[:3000])
    items["else"]["nir"] = write_raster(tmp_path / "else.tif", image[3:], crs="EPSG:32613")
    job = job_over(tmp_path, items, RGB, name="out", crop_bands=["nir"], merge={"scenes": "none"})
    result = run(job, engine="local", progress=False)
    reasons = {failure.scene_id: failure.error for failure in result.failures}
    assert sorted(reasons) == ["else", "gone", "short"]
    assert "gone-blue.tif does not exist" in reasons["gone"]
    assert "short-green.tif" in reasons["short"]
    assert "bands 'red' and 'nir' don't share one CRS and extent" in reasons["else"]
    assert_right(result, answers)
    assert_sums(result.counts)
    # The header of a file that is cut short is whole.
    assert plan(job, measure=False).unreadable == 2


def test_sixteen_bits_at_a_coarser_resolution_with_nodata_and_a_picture_of_it(tmp_path):
    """As Sentinel-2 comes: uint16, 0 where there is nothing."""
    image, _ = painted()
    deep = image.astype(np.uint16) * 10 + 1
    deep[:, :, 500:] = 0
    paths = {}
    for band, pixels in zip(RGB, deep[:3], strict=True):
        paths[band] = write_raster(tmp_path / f"{band}.tif", pixels[None], nodata=0, **COG)
    job = job_over(tmp_path, {"a": paths}, RGB, name="out", source={"rescale": [1, 2551]})
    result = run(job, engine="local", progress=False)
    assert len(result.to_geopandas()) == sum(x < 490 for x, _ in LATTICE)
    assert result.counts["windows_skipped_nodata"] > 0
    picture = write_quicklook(tmp_path / "out", tmp_path / "q.png")
    with rasterio.open(picture) as drawn:
        colours = drawn.read([1, 2, 3])
    # The patches' red alone is red, so bands came in their order.
    assert ((colours[0] > 200) & (colours[1] < 60) & (colours[2] < 60)).any()
    # At half the resolution from overviews.
    coarse = job.model_copy(
        update={"windows": job.windows.model_copy(update={"resolution": 0.2}),
                "output": job.output.model_copy(update={"path": str(tmp_path / "coarse")})}
    )  # fmt: skip
    assert plan(coarse, measure=False).pixels * 4 == pytest.approx(plan(job, measure=False).pixels)
    run(coarse, engine="local", progress=False)


def test_over_a_network_each_byte_of_each_file_comes_once(tmp_path):
    image, _ = painted()
    paths = split(tmp_path, image, factor=2)
    with range_server(tmp_path) as server:
        urls = {band: f"{server}/{path.name}" for band, path in paths.items()}
        job = job_over(tmp_path, {"a": urls}, RGB, name="out", crop_bands=["nir"])
        text = (tmp_path / "out.json").read_text()
        assert json.loads(text)["features"][0]["assets"]["nir"]["href"] == urls["nir"]
        result = run(job, engine="local", progress=False)
        assert len(result.to_geopandas()) == len(LATTICE)
        total = sum(path.stat().st_size for path in paths.values())
        # Headers are read to plan and to sweep; overviews not at all.
        assert server.sent < 1.05 * total


def test_the_command_takes_names_and_says_what_bands_must_be(tmp_path):
    from typer.testing import CliRunner

    from geosweep.pipeline.cli import app

    image, _ = painted()
    raster = write_raster(tmp_path / "named.tif", image[[3, 2, 1, 0]])
    with rasterio.open(raster, "r+") as dataset:
        dataset.descriptions = ("nir", "blue", "green", "red")
    command = ["detect", str(raster), "--detector", "tests.detectors:paint", "--crs", "none"]

    def detect(bands):
        return CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out"), "--bands", bands])

    bad = detect("red,green")
    assert bad.exit_code == 2
    assert "--bands is 'red,green', but must be three numbers or names" in bad.output
    assert detect("red,green,blue").exit_code == 0
    record = Records(open_storage(tmp_path / "out")).read("named")
    assert record.rows == len(LATTICE)
