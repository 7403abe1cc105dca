"""What travels with a submitted job, and what can't."""

import json

import pytest
import shapely

from geosweep.catalog.area import read_area
from geosweep.catalog.errors import JobError
from geosweep.pipeline import Job
from geosweep.pipeline._bundle import JOB_FILE, local_paths, portable, read_bundle, write_bundle
from geosweep.pipeline.submission import submission_id


def job(**blocks):
    return Job.from_dict(
        {"source": {"rasters": ["s3://b/a.tif"]}, "output": {"path": "s3://b/out"}, **blocks}
    )


def area_file(folder, *shapes):
    import geopandas as gpd

    path = folder / "area.gpkg"
    gpd.GeoDataFrame({"name": range(len(shapes))}, geometry=list(shapes), crs="EPSG:32612").to_file(
        path
    )
    return path


def test_an_area_goes_along_and_is_the_same_ground(tmp_path):
    shapes = [
        shapely.Point(528_000.3, 4_978_000.7).buffer(150),
        shapely.box(528_100, 4_978_100, 529_000.1, 4_979_000),
    ]
    path = area_file(tmp_path, *shapes)
    source = {"rasters": ["s3://b/a.tif"], "intersects": str(path)}
    before = job(source=source)
    after = portable(before)
    path.unlink()
    assert isinstance(after.source.intersects, dict)
    again = Job.from_dict(json.loads(json.dumps(after.model_dump(mode="json"))))
    assert read_area(again.source.intersects).wkt == read_area(after.source.intersects).wkt
    area_file(tmp_path, *shapes)
    # So that an output begun here goes on there.
    assert again.fingerprint({}) == before.fingerprint({})


def test_paths_become_absolute_and_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trees.safetensors").touch()
    moved = portable(
        job(
            source={"rasters": ["https://x.org/a.tif", "a.tif", "b.tif"]},
            detector={"model": "trees.safetensors"},
            crop_models=[{"model": "/models/dead"}],
            tile_filter={"model": "geosweep/empty"},
            output={"path": "out"},
        )
    )
    assert moved.source.rasters == (
        "https://x.org/a.tif",
        str(tmp_path / "a.tif"),
        str(tmp_path / "b.tif"),
    )
    assert local_paths(moved) == [
        f"source.rasters ({tmp_path / 'a.tif'})",
        f"output.path ({tmp_path / 'out'})",
        f"detector.model ({tmp_path / 'trees.safetensors'})",
        "crop_models (/models/dead)",
    ]


@pytest.mark.parametrize("model", ["geosweep/tree", "hf:a/b", "weecology/x", "module:factory"])
def test_what_every_machine_sees_is_no_path(model):
    assert local_paths(portable(job(detector={"model": model}))) == []


def test_a_bundle_arrives_as_it_was(tmp_path):
    package = tmp_path / "shop"
    (package / "deep").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "__init__.py").write_text("x = 1")
    (package / ".gitignore").write_text("*")  # Ray would leave out what git does
    (package / "deep" / "weights.bin").write_bytes(b"\0")
    (tmp_path / "single.py").touch()
    (tmp_path / "some-1-py3-none-any.whl").touch()
    names = ("shop", "single.py", "some-1-py3-none-any.whl")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    given = job(name="x", detector={"model": "shop:make"})
    wheels = write_bundle(bundle, given, {"limit": 3}, [tmp_path / name for name in names])
    assert [wheel.name for wheel in wheels] == [names[2]]
    files = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    assert files == [JOB_FILE, "shop/__init__.py", "shop/deep/weights.bin", "single.py"]
    assert read_bundle(bundle / JOB_FILE) == (given, {"limit": 3})


@pytest.mark.parametrize("name", ["missing.py", "notes.txt", "no-package", "geosweep", "twice.py"])
def test_what_is_no_module_is_named(tmp_path, name):
    for folder in ("no-package", "geosweep", "twice", "bundle"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "twice.py").touch()
    modules = [tmp_path / name, tmp_path / name]
    with pytest.raises(JobError, match=name.partition(".")[0]):
        write_bundle(tmp_path / "bundle", job(), {}, modules)


def test_an_id_is_that_of_the_work_and_its_place():
    def signed(signature):
        return {"rasters": [f"https://b.org/a.tif?v=1&X-Amz-Signature={signature}"]}

    first = job(name="Über all, trees!", source=signed("a"))
    assert submission_id(first).startswith("geosweep-ber-all-trees-")
    same = [
        job(name="Über all, trees!", source=signed("b")),
        job(name="Über all, trees!", source=signed("a"), cluster={"readers": 2}),
        job(name="Über all, trees!", source=signed("a"), detector={"batch_size": 4}),
    ]
    others = [
        job(name="trees", source=signed("a")),
        job(name="Über all, trees!"),
        job(name="Über all, trees!", source=signed("a"), output={"path": "s3://b/other"}),
        job(name="Über all, trees!", source=signed("a"), detector={"model": "m:f"}),
        job(name="Über all, trees!", source=signed("a"), windows={"size": 300}),
    ]
    assert {submission_id(each) for each in same} == {submission_id(first)}
    assert len({submission_id(each) for each in (first, *others)}) == 1 + len(others)
