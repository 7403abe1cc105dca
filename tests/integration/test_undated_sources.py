"""`update` over rasters that nobody dates: what their server says tells what was replaced in place."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from geosweep.pipeline import Job, read_output, run, update
from tests.scenes import HEIGHT, WIDTH, painted_scene, stac_items
from tests.servers import range_server

UPDATES = ("new", "changed", "unchanged", "scenes_now")


def place(raster, number, folder):
    """Put a raster under a name that may have another one; never of the same second."""
    path = folder / f"scene{number}.tif"
    shutil.copy(raster, path)
    place.clock += 10
    os.utime(path, (place.clock, place.clock))


place.clock = 1_700_000_000


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    return [painted_scene(folder, number) for number in range(4)]


@pytest.mark.parametrize("kind", ["items", "rasters", "signed"])
def test_only_what_was_replaced_is_done_again(kind, rasters, tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    for number in range(3):
        place(rasters[number], number, served)
    with range_server(served) as server:
        server.uses = 30 if kind == "signed" else None
        job = job_over(kind, server, tmp_path)

        def one_pass():
            result = update(job, engine="local", progress=False)
            assert result.failures == []
            return tuple(result.counts[name] for name in UPDATES)

        assert one_pass() == (3, 0, 0, 3)
        server.methods.clear()
        assert one_pass() == (0, 0, 3, 0)
        if kind != "signed":  # whose signatures are asked for, too
            assert server.methods == ["HEAD"] * 3  # nothing is read to know that nothing happened
        place(rasters[3], 1, served)
        assert one_pass() == (0, 1, 2, 1)
        assert one_pass() == (0, 0, 3, 0)
        # Pixels of the new file, not of the old one that this process has read.
        run(job_over(kind, server, tmp_path, "fresh"), engine="local", progress=False)
        assert read_output(tmp_path / "out").equals(read_output(tmp_path / "fresh"))


def test_a_server_that_is_down_changes_nothing(rasters, tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    for number in range(3):
        place(rasters[number], number, served)
    with range_server(served) as server:
        job = job_over("items", server, tmp_path)
        update(job, engine="local", progress=False)
        rows = read_output(tmp_path / "out")
        for trouble in (503, 403):
            server.statuses = [trouble] * 100
            result = update(job, engine="local", progress=False)
            assert tuple(result.counts[name] for name in UPDATES) == (0, 0, 3, 0)
    result = update(job, engine="local", progress=False)
    assert tuple(result.counts[name] for name in UPDATES) == (0, 0, 3, 0)
    assert result.failures == [] and read_output(tmp_path / "out").equals(rows)


def job_over(kind, server, folder, output="out"):
    names = [f"scene{number}" for number in range(3)]
    source = {"rasters": [f"{server}/{name}.tif" for name in names]}
    if kind != "rasters":
        hrefs = {name: {"image": f"{server}/{name}.tif"} for name in names}
        items = stac_items(folder / "items.json", hrefs)
        content = json.loads(items.read_text())
        for number, item in enumerate(content["features"]):
            item["properties"] |= {
                "proj:code": "EPSG:32612",
                "proj:shape": [HEIGHT, WIDTH],
                "proj:transform": [0.1, 0, 500_000 + number * 200, 0, -0.1, 4_978_000],
            }
        items.write_text(json.dumps(content))
        source = {"stac": str(items)}
    if kind == "signed":
        source["sign"] = "tests.signers:from_server"
    return Job.from_dict(
        {
            "name": "test",
            "source": source,
            "detector": {"model": "tests.detectors:paint"},
            "output": {"path": str(folder / output)},
        }
    )
