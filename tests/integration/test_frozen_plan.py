"""A plan in force needs no source; a finished one gives way to what the source has now."""

import json
import logging
from dataclasses import asdict

import pytest
from rasterio.transform import from_origin

from geosweep.catalog import SourceError, open_storage
from geosweep.catalog.ledger import Ledger
from geosweep.catalog.planfile import PLAN, PlanFile
from geosweep.pipeline import plan, run
from geosweep.pipeline.frozen import plan_key, settle_plan
from geosweep.pipeline.planner import ScenePlan
from tests.detectors import grey, paint_patches
from tests.rasters import write_raster
from tests.scenes import assert_sums, job_over, stac_items
from tests.servers import range_server
from tests.stacservers import proxy_server, rustac_server

GONE = "does not exist. Going by the plan of"


def raster(folder, number, *, east=100.0):
    """A scene of 50 m with one object; neighbours share 10 m if `east` is 40."""
    pixels = paint_patches(grey(500, 500, number), [(100, 100, 130, 140)])
    place = from_origin(500_000 + number * east, 4_978_000, 0.1, 0.1)
    return write_raster(folder / f"r{number}.tif", pixels, transform=place)


def sweep(job, **options):
    return run(job, engine="local", progress=False, **options)


def standing(output):
    with Ledger.read(open_storage(output)) as ledger:
        return {one.scene_id: one.version for one in ledger}


@pytest.fixture
def items(tmp_path):
    """A job over three items of a file."""
    file = stac_items(
        tmp_path / "items.json", {f"i{n}": {"image": raster(tmp_path, n)} for n in range(3)}
    )
    return file, job_over([], tmp_path / "out", source={"stac": str(file)})


def test_a_limited_run_leaves_its_plan_in_force_and_needs_no_source_to_go_on(items, caplog):
    file, job = items
    first = sweep(job, limit=1)
    assert (first.counts["scenes"], first.counts["scenes_now"], first.exit_code) == (1, 1, 0)
    file.unlink()
    with caplog.at_level(logging.INFO, "geosweep"):
        rest = sweep(job)
    assert "going on with the plan of" in caplog.text
    assert (rest.counts["scenes"], rest.counts["scenes_now"], rest.exit_code) == (3, 2, 0)
    assert_sums(rest.counts)
    assert len(rest.to_arrow()) == rest.counts["detections"] == 3


def test_the_source_of_a_finished_plan_may_be_gone(items, caplog):
    file, job = items
    done = sweep(job)
    file.unlink()
    again = sweep(job)
    assert GONE in caplog.text
    assert (again.counts["scenes_now"], again.exit_code) == (0, 0)
    assert again.counts["detections"] == done.counts["detections"]
    # Another set of scenes can't be told from the old plan.
    other = job.model_copy(update={"source": job.source.model_copy(update={"limit": 2})})
    with pytest.raises(SourceError, match=r"items\.json does not exist"):
        sweep(other)


def test_a_job_whose_source_is_bad_leaves_no_output(tmp_path, items):
    _, job = items
    missing = job.source.model_copy(update={"stac": str(tmp_path / "none.json")})
    with pytest.raises(SourceError, match=r"none\.json does not exist"):
        sweep(job.model_copy(update={"source": missing}))
    assert not (tmp_path / "out").exists()


def test_a_raster_that_comes_after_a_finished_run_is_taken_up(tmp_path):
    folder = tmp_path / "rasters"
    folder.mkdir()
    raster(folder, 0)
    job = job_over([folder], tmp_path / "out")
    assert sweep(job).counts["scenes"] == 1
    raster(folder, 1)
    both = sweep(job)
    assert (both.counts["scenes"], both.counts["scenes_now"]) == (2, 1)


def test_what_was_wrong_with_a_failed_scene_is_looked_at_again(tmp_path):
    hrefs = {f"i{n}": {"image": tmp_path / f"r{n}.tif"} for n in range(2)}
    file = stac_items(tmp_path / "items.json", hrefs)
    raster(tmp_path, 1)
    job = job_over([], tmp_path / "out", source={"stac": str(file)})
    assert sweep(job, limit=1).failures[0].error.endswith("r0.tif does not exist")
    raster(tmp_path, 0)
    assert sweep(job, limit=1, retry_failed=True).counts["succeeded"] == 1
    file.unlink()
    assert sweep(job, retry_failed=True).counts["succeeded"] == 2


def test_a_plan_for_other_scenes_or_to_overwrite_is_made_anew(items):
    file, job = items
    sweep(job, limit=1)
    document = json.loads(file.read_text())
    document["features"].append(document["features"][0] | {"id": "late"})
    file.write_text(json.dumps(document))
    assert sweep(job, limit=1).counts["scenes_now"] == 0  # in force: `late` is not in it
    assert PlanFile.open(open_storage(job.output.path)).count == 3
    narrow = job.source.model_copy(update={"datetime": "2022"})
    assert sweep(job.model_copy(update={"source": narrow}), limit=1).counts["scenes"] == 1
    assert PlanFile.open(open_storage(job.output.path)).count == 4
    document["features"].pop()
    file.write_text(json.dumps(document))
    assert sweep(job, overwrite=True).counts["scenes_now"] == 3


def test_a_resumed_run_asks_no_server(tmp_path):
    rasters = [raster(tmp_path, number) for number in range(3)]
    features = json.loads(
        stac_items(
            tmp_path / "all.json", {f"i{n}": {"image": path} for n, path in enumerate(rasters)}
        ).read_text()
    )["features"]
    for feature in features:
        feature["geometry"] = {"type": "Point", "coordinates": [-111, 45]}
        feature["bbox"] = [-111, 45, -111, 45]
        feature["collection"] = "c"
        feature["links"] = []
    with proxy_server() as front, rustac_server(features, tmp_path, front.url) as url:
        front.target = url
        job = job_over([], tmp_path / "out", source={"stac": front.url, "collections": "c"})
        assert sweep(job, limit=2).counts["scenes_now"] == 2
        asked = len(front.paths)
        assert asked > 0
        assert sweep(job, limit=2).counts["scenes_now"] == 0
        assert len(front.paths) == asked
    rest = sweep(job)  # the server is down
    assert (rest.counts["scenes_now"], rest.counts["scenes"]) == (1, 3)
    assert_sums(rest.counts)


def test_signatures_that_the_plan_may_not_keep_are_asked_for_again(tmp_path, caplog):
    names = [raster(tmp_path, number).name for number in range(2)]
    with range_server(tmp_path) as server:
        hrefs = {name: {"image": f"{server.url}/{name}?token=hunter2"} for name in names}
        file = stac_items(tmp_path / "items.json", hrefs)
        job = job_over([], tmp_path / "out", source={"stac": str(file)})
        assert sweep(job, limit=1).counts["succeeded"] == 1
        with caplog.at_level(logging.INFO, "geosweep"):
            assert sweep(job).counts["succeeded"] == 2
        assert "going on with" not in caplog.text
        file.unlink()
        with pytest.raises(SourceError, match="does not exist"):
            sweep(job)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


def test_an_item_that_is_gone_keeps_its_ground(tmp_path):
    """Else its neighbours would be swept again, and what it found would stand twice."""
    rasters = [raster(tmp_path, number, east=40.0) for number in range(3)]
    file = tmp_path / "items.json"
    hrefs = {f"i{n}": {"image": path} for n, path in enumerate(rasters)}
    stac_items(file, hrefs)
    job = job_over([], tmp_path / "out", source={"stac": str(file)})
    sweep(job)
    before = standing(tmp_path / "out")
    for left in (["i1", "i2"], ["i1"]):
        stac_items(file, {name: hrefs[name] for name in left})
        after = sweep(job)
        assert (after.counts["scenes"], after.counts["scenes_now"]) == (len(left), 0)
        assert standing(tmp_path / "out") == before
    kept = PlanFile.open(open_storage(tmp_path / "out"))
    assert sorted(scene.id for scene in kept.retained()) == ["i0", "i2"]
    stac_items(file, hrefs)  # and back
    assert sweep(job).counts["scenes_now"] == 0


def test_the_dry_run_goes_by_the_plan_in_force_and_writes_none(items):
    file, job = items
    before = plan(job, measure=False)
    assert not open_storage(job.output.path).exists(PLAN)
    sweep(job, limit=1)
    file.unlink()
    assert asdict(plan(job, measure=False)) == asdict(before)


def test_scenes_are_decided_on_one_at_a_time(items):
    _, job = items
    storage = open_storage(job.output.path)
    tasks = ScenePlan(job, settle_plan(job, storage, dry=True)).tasks()
    assert [next(tasks).scene.id, next(tasks).scene.id] == ["i0", "i1"]
    assert [task.scene.id for task in tasks] == ["i2"]


def test_the_key_knows_places_not_signatures(items, monkeypatch):
    file, job = items

    def key(**fields):
        return plan_key(job.model_copy(update={"source": job.source.model_copy(update=fields)}))

    monkeypatch.chdir(file.parent)
    assert key(stac="items.json") == key() == key(sign="planetary-computer")
    assert key(stac="other.json") != key() != key(collections=("a",))
    url = "https://example.com/items.json"
    assert key(stac=f"{url}?sig=a") == key(stac=url) != key(stac=f"{url}?tenant=a")
