"""Whole jobs over rasters that nobody may read without a signature, and that expire on the way."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import rasterio

from geosweep.pipeline import Job, plan, run
from geosweep.pipeline.map import write_map
from tests.rasters import write_raster
from tests.scenes import assert_sums, painted_scene, stac_items
from tests.servers import range_server


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    return [painted_scene(folder, number) for number in range(3)]


@pytest.fixture(scope="module")
def expected(rasters, tmp_path_factory):
    """Rows of the same items with their rasters on a disk."""
    folder = tmp_path_factory.mktemp("plain")
    return rows(run(job({path.stem: path for path in rasters}, folder, None), engine="local"))


def rows(result):
    """All but where the raster was."""
    return result.to_arrow().drop_columns("image_path").sort_by("detection_id")


@pytest.fixture
def server(rasters):
    with range_server(rasters[0].parent) as server:
        # An opened raster takes three requests, and one for each of its four rows of blocks: no
        # signature lasts for a scene.
        server.uses = 5
        yield server


def signed(server, rasters):
    return {path.stem: f"{server}/{path.name}?sig=s3cret-old" for path in rasters}


def job(hrefs, folder, sign="tests.signers:from_server"):
    items = stac_items(folder / "items.json", {name: {"image": hrefs[name]} for name in hrefs})
    return Job.from_dict(
        {
            "name": "test",
            "source": {"stac": str(items), "sign": sign},
            "detector": {"model": "tests.detectors:paint"},
            "output": {"path": str(folder / "out")},
        }
    )


def holds_a_secret(*folders):
    return [
        path
        for folder in folders
        for path in Path(folder).rglob("*")
        if path.is_file() and "s3cret" in content(path)
    ]


def content(path):
    if path.suffix == ".parquet":  # compressed
        return str(pq.read_table(path).to_pylist())
    return path.read_bytes().decode(errors="replace")


def ray_logs():
    from ray._private import worker

    return Path(worker._global_node.get_session_dir_path()) / "logs"


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_signatures_expire_within_each_scene(
    engine, server, rasters, expected, tmp_path, caplog, capfd, request
):
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    caplog.set_level(logging.DEBUG)
    result = run(job(signed(server, rasters), tmp_path), engine=engine)
    assert result.failures == []
    assert_sums(result.counts)
    assert rows(result).equals(expected)
    assert len(server.tokens) > 2 * len(rasters)
    assert not holds_a_secret(tmp_path / "out", *([ray_logs()] if engine == "ray" else []))
    assert "s3cret" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("engine", "sign"),
    [
        ("local", "stale"),
        ("local", "broken"),
        pytest.param("ray", "broken", marks=pytest.mark.ray),
    ],
)
def test_scenes_without_a_valid_signature_fail_and_tell_nothing(
    engine, sign, server, rasters, tmp_path, caplog, capfd, request
):
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    caplog.set_level(logging.DEBUG)
    unreadable = job(signed(server, rasters[:1]), tmp_path, f"tests.signers:{sign}")
    result = run(unreadable, engine=engine, progress=False)
    assert result.exit_code == 1
    (failure,) = result.failures
    assert "scene0.tif can't be " in failure.error
    assert not holds_a_secret(tmp_path / "out", *([ray_logs()] if engine == "ray" else []))
    assert "s3cret" not in caplog.text + "".join(capfd.readouterr())


def test_every_raster_of_a_scene_is_signed(rasters, tmp_path):
    """One for each band, and another one that crops are cut from."""
    with rasterio.open(rasters[0]) as source:
        image, where = source.read(), {"transform": source.transform}
    files = {"chm": rasters[0]}
    for band, pixels in zip(("red", "green", "blue"), image, strict=True):
        layout = {"driver": "COG", "compress": "DEFLATE", "blocksize": 256, **where}
        files[band] = write_raster(tmp_path / f"{band}.tif", pixels[None], **layout)
    shutil.copy(rasters[0], tmp_path / "chm.tif")

    def result(hrefs, folder, sign):
        folder.mkdir()
        job = {
            "name": "test",
            "source": {
                "stac": str(stac_items(folder / "items.json", {"scene": hrefs})),
                "bands": ["red", "green", "blue"],
                "sign": sign,
            },
            "detector": {"model": "tests.detectors:paint"},
            "crop_models": [{"model": "tests.cropmodels:tiny", "asset": "chm"}],
            "output": {"path": str(folder / "out")},
        }
        return run(Job.from_dict(job), engine="local", progress=False)

    plain = result(files, tmp_path / "plain", None)
    with range_server(tmp_path) as server:
        server.uses = 5
        hrefs = {key: f"{server}/{key}.tif?sig=s3cret-old" for key in files}
        far = result(hrefs, tmp_path / "far", "tests.signers:from_server")
    assert (far.failures, len(rows(far))) == ([], 54)
    assert rows(far).equals(rows(plain))
    assert not holds_a_secret(tmp_path / "far" / "out")


def test_an_output_names_no_code_to_run(server, rasters, tmp_path):
    """Who looks at somebody's output calls none of the signers that their job names."""
    run(job(signed(server, rasters), tmp_path), engine="local", progress=False)
    asked = len(server.tokens)
    page = write_map(tmp_path / "out")
    assert "can't be shown" in page.read_text()
    assert len(server.tokens) == asked
    assert "s3cret" not in page.read_text()


def test_the_dry_run_signs_too(server, rasters, tmp_path):
    summary = plan(job(signed(server, rasters), tmp_path), measure=False)
    assert (summary.scenes, summary.unreadable) == (3, 0)
