"""Crop models with inputs of their own in one job: sizes, bands, context, other assets; both engines."""

import numpy as np
import pytest
import rasterio

from geosweep.catalog import Records, open_storage
from geosweep.pipeline import Job, JobError, ModelError, SourceError, predict_tile, run
from tests.cropmodels import near_infrared, red_and_infrared
from tests.detectors import PaintDetector, grey, paint_patches
from tests.rasters import write_raster
from tests.scenes import assert_sums, job_over, stac_items

SIZE = 700
LATTICE = [(x, y) for x in range(20, 600, 150) for y in range(20, 600, 150)]
FOUR = {"photometric": "MINISBLACK", "compress": "DEFLATE", "tiled": True}


def patches(seed):
    """Boxes of a scene, with a colour and whether they are bright in near-infrared."""
    rng = np.random.default_rng(seed)
    for x, y in LATTICE:
        wide, high = rng.integers(20, 100, 2)
        yield (x, y, x + int(wide), y + int(high)), rng.choice(["red", "blue"]), rng.random() < 0.5


def four_bands(folder, seed=0):
    """RGB with patches, and a fourth band in which some of them are bright."""
    image, infrared = grey(SIZE, SIZE, seed), np.full((1, SIZE, SIZE), 20, np.uint8)
    for box, colour, bright in patches(seed):
        x0, y0, x1, y1 = box
        paint_patches(image, [box], colour)
        infrared[0, y0:y1, x0:x1] = 230 if bright else 60
    return write_raster(folder / f"four{seed}.tif", np.concatenate([image, infrared]), **FOUR)


def answers(seed=0):
    return {box: ("high" if bright else "low") for box, _, bright in patches(seed)}


def assert_right(frame, column, seed=0):
    found = {
        (int(r.xmin), int(r.ymin), int(r.xmax), int(r.ymax)): getattr(r, column)
        for r in frame.itertuples()
    }
    assert found == answers(seed)


def test_models_of_other_sizes_bands_and_contexts_go_side_by_side(tmp_path):
    raster = four_bands(tmp_path)
    models = {"nir": near_infrared(), "both": red_and_infrared()}
    found = predict_tile(raster, detector=PaintDetector(), crop_model=models, bands=[1, 2, 3])
    assert len(found) == len(LATTICE)
    assert found.detection_id.is_unique
    assert not found.drop(columns="datetime").isna().any(axis=None)
    assert_right(found, "nir_label")
    # Each as if it were alone.
    for name, model in models.items():
        alone = predict_tile(
            raster, detector=PaintDetector(), crop_model={name: model}, bands=[1, 2, 3]
        )
        columns = [f"{name}_label", f"{name}_score"]
        assert found[columns].equals(alone[columns])


MIXED = [
    {"name": "nir", "model": "tests.cropmodels:near_infrared", "scores": True},
    {"name": "both", "model": "tests.cropmodels:red_and_infrared", "batch_size": 3},
]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_both_engines_skip_cut_and_read_the_same(tmp_path):
    items = {}
    for seed in range(2):
        four = four_bands(tmp_path, seed)
        items[f"s{seed}"] = {"image": four, "nir": infrared_asset(tmp_path, seed)}
    source = {"stac": str(stac_items(tmp_path / "items.json", items)), "asset": "image"}
    crops = [*MIXED, {**OTHER, "batch_size": 4}]

    def result(engine, name):
        job = job_over(
            [],
            tmp_path / name,
            source=source | {"bands": [1, 2, 3]},
            crop_models=crops,
            tile_filter={"model": "tests.tilefilters:paint"},
            windows={"size": 190, "overlap": 0.55},
            merge={"scenes": "none"},
        )
        return run(job, engine=engine, progress=False)

    by_ray, local = result("ray", "ray"), result("local", "local")
    first, second = (r.to_arrow().sort_by("detection_id") for r in (by_ray, local))
    assert first.equals(second)
    assert by_ray.counts == local.counts
    assert_sums(local.counts)
    for end in ("skipped_filter", "uncertain", "empty_and_something"):
        assert local.counts[f"windows_{end}"] > 0
    frame = local.to_geopandas()
    assert len(frame) == 2 * len(LATTICE)
    assert not frame.isna().any(axis=None)
    for seed in range(2):
        rows = frame[frame.scene_id == f"s{seed}"]
        assert_right(rows, "nir_label", seed)
        assert_right(rows, "other_label", seed)


OTHER = {"name": "other", "model": "tests.cropmodels:near_infrared", "asset": "nir", "bands": [1]}


def infrared_asset(folder, seed=0, **profile):
    """The fourth band alone: as 16 bit at a third of the resolution, in another CRS."""
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    with rasterio.open(folder / f"four{seed}.tif") as dataset:
        band = dataset.read(4).astype(np.uint16) * 40
        transform, wide, high = calculate_default_transform(
            dataset.crs, "EPSG:4326", SIZE, SIZE, *dataset.bounds
        )
        other = np.zeros((high, wide), np.uint16)
        reproject(
            band,
            other,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            dst_transform=transform,
            dst_crs="EPSG:4326",
            resampling=Resampling.nearest,
        )
    return write_raster(
        folder / f"nir{seed}.tif", other[None], crs="EPSG:4326", transform=transform, **profile
    )


OTHER["rescale"] = [0, 10200]


def stac_job(folder, items, *, crop_models=(OTHER,), name="out"):
    source = {"stac": str(stac_items(folder / "items.json", items)), "asset": "image"}
    return Job.from_dict(
        {
            "source": source | {"bands": [1, 2, 3]},
            "detector": {"model": "tests.detectors:paint"},
            "crop_models": list(crop_models),
            "merge": {"scenes": "none"},
            "output": {"path": str(folder / name)},
        }
    )


def test_an_item_without_the_asset_fails_by_name_and_a_job_without_it_is_refused(tmp_path):
    four = four_bands(tmp_path)
    nir = infrared_asset(tmp_path)
    items = {
        "good": {"image": four, "nir": nir},
        "bare": {"image": four, "thumbnail": four},
        "gone": {"image": four, "nir": tmp_path / "gone.tif"},
    }
    result = run(stac_job(tmp_path, items), engine="local", progress=False)
    reasons = {failure.scene_id: failure.error for failure in result.failures}
    assert sorted(reasons) == ["bare", "gone"]
    assert "item bare has no asset 'nir', it has image, thumbnail" in reasons["bare"]
    assert "gone.tif, the asset 'nir', does not exist" in reasons["gone"]
    assert result.counts["succeeded"] == 1
    assert_sums(result.counts)
    with pytest.raises(SourceError, match=r"has no asset 'nir'.*crop_models\.asset"):
        run(stac_job(tmp_path, {"bare": items["bare"]}, name="b"), engine="local", progress=False)


def test_the_record_tells_the_assets_version_which_decides_whether_a_scene_is_redone(tmp_path):
    four = four_bands(tmp_path)
    nir = infrared_asset(tmp_path)
    job = stac_job(tmp_path, {"a": {"image": four, "nir": nir}})
    # The items say `datetime` alone, so that the files' own stamps are their versions.
    assert run(job, engine="local", progress=False).counts["scenes_now"] == 1
    record = Records(open_storage(tmp_path / "out")).read("a")
    assert record.scene.assets["nir"].href == str(nir)
    assert run(job, engine="local", progress=False).counts["scenes_now"] == 0
    with rasterio.open(nir, "r+") as dataset:
        dataset.write(dataset.read() // 2)
    assert run(job, engine="local", progress=False).counts["scenes_now"] == 1


def test_a_cut_off_asset_fails_its_scene_and_an_asset_elsewhere_leaves_nulls(tmp_path):
    four = four_bands(tmp_path)
    short = infrared_asset(tmp_path)
    short.write_bytes(short.read_bytes()[:2000])
    far = write_raster(
        tmp_path / "far.tif",
        np.ones((1, 50, 50), np.uint8),
        transform=rasterio.transform.from_origin(700_000, 4_900_000, 1, 1),
    )
    items = {"short": {"image": four, "nir": short}, "far": {"image": four, "nir": far}}
    result = run(stac_job(tmp_path, items), engine="local", progress=False)
    ((failure),) = result.failures
    assert failure.scene_id == "short"
    assert "crop model other, asset 'nir': " in failure.error
    assert result.counts["crops_outside"] == len(LATTICE)
    frame = result.to_geopandas()
    assert frame.other_label.isna().all()
    assert frame.other_score.isna().all()
    assert len(frame) == len(LATTICE)
    assert_sums(result.counts)


def test_corrupt_blocks_under_a_crop_cost_its_window(tmp_path):
    """As corrupt blocks of the raster that is swept do."""
    four = four_bands(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE)).astype(np.uint8)
    other = write_raster(
        tmp_path / "nir.tif",
        noise,
        compress="JPEG",
        tiled=True,
        blockxsize=256,
        blockysize=256,
    )
    with rasterio.open(other) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        size = int(dataset.get_tag_item("BLOCK_SIZE_0_0", "TIFF", bidx=1))
    content = bytearray(other.read_bytes())
    middle = offset + size // 2
    content[middle : middle + 40] = bytes(range(40))
    other.write_bytes(content)
    plain = {key: value for key, value in OTHER.items() if key != "rescale"}
    items = {"a": {"image": four, "nir": other}}
    counts = []
    # GDAL complains about a block once, however many crops lie on it.
    for size in (64, 1):
        job = stac_job(
            tmp_path, items, crop_models=[plain | {"batch_size": size}], name=f"out{size}"
        )
        counts.append(run(job, engine="local", progress=False).counts)
        assert_sums(counts[-1])
    assert counts[0] == counts[1]
    assert counts[0]["windows_failed"] >= 1
    assert 0 < counts[0]["detections"] < len(LATTICE)


def test_what_does_not_fit_is_one_sentence(tmp_path):
    four = four_bands(tmp_path)
    with pytest.raises(JobError, match="plain rasters have no assets"):
        job_over([four], tmp_path, crop_models=[OTHER])
    two = {**OTHER, "bands": [1, 2]}
    job = stac_job(tmp_path, {"a": {"image": four, "nir": four}}, crop_models=[two])
    with pytest.raises(ModelError, match=r"other takes 1 bands, and crop_models\.bands names 2"):
        run(job, engine="local", progress=False)


def test_new_keys_leave_old_fingerprints_alone_and_count_when_given(tmp_path):
    from geosweep.pipeline.settings import Settings

    def mark(**keys):
        crop = {"name": "other", "model": "tests.cropmodels:near_infrared"} | keys
        job = stac_job(tmp_path, {}, crop_models=[crop])
        content = job.model_dump(mode="json")["crop_models"][0]
        assert set(keys) <= set(content)
        return Settings.resolve(job).fingerprint

    marks = [mark(), mark(bands=[4]), mark(asset="nir"), mark(rescale=[0, 9])]
    assert len(set(marks)) == 4
