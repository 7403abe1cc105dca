from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac.validation
import pytest
import shapely
from pystac.errors import STACValidationError

from geosweep.catalog import OutputCheck, open_storage, read_collection, validate_output
from geosweep.catalog._repeats import Repeats
from geosweep.catalog._stacschemas import StacSchemas
from geosweep.catalog.stacitems import multihash
from geosweep.pipeline import run
from tests.detectors import grey
from tests.rasters import write_raster
from tests.scenes import job_over, painted_scene
from tests.servers import range_server

from .helpers import make_item


def checked(folder: Path, **options: Any) -> OutputCheck:
    storage = open_storage(folder)
    collection = read_collection(storage)
    assert collection is not None
    return validate_output(storage, collection, **({"fetch_schemas": False} | options))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A real run's output: two scenes with detections, one without, one that failed."""
    folder = tmp_path_factory.mktemp("sound")
    rasters = [painted_scene(folder, number) for number in range(2)]
    rasters.append(write_raster(folder / "empty.tif", grey(450, 450, 1)))
    rasters.append(folder / "gone.tif")
    run(job_over(rasters, folder / "out"), engine="local", progress=False)
    return folder / "out"


@pytest.fixture
def output(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "out"))


def test_a_run_is_sound(sound):
    check = checked(sound)
    assert check.problems == []
    assert check.ok
    looked = list(check.checked.values())
    # The failed scene has no data file.
    assert looked[:11] == [1, 4, 4, 4, 3, 3, 3, 3, 3, 3, 4]
    assert looked[11] == 9
    (note,) = check.notes
    assert "not at hand" in note and "projection" in note


@pytest.mark.parametrize("crs", ["EPSG:32612", "EPSG:3857", None])
def test_other_crs(tmp_path, crs):
    rasters = [painted_scene(tmp_path, 0)]
    out = tmp_path / "out"
    job = job_over(rasters, out)
    run(
        job.model_copy(update={"output": job.output.model_copy(update={"crs": crs})}),
        engine="local",
        progress=False,
    )
    assert checked(out).problems == []
    edit(out, rows=moved(20_000 if crs is None else 3000))
    (problem,) = checked(out).problems
    assert "54 of 54 rows lie outside the scene's footprint" in problem


def scene(output: Path, name: str = "scene0") -> Path:
    return output / "items" / f"{name}.json"


def edit(
    output: Path,
    name: str = "scene0",
    *,
    item: Callable[[dict], object] | None = None,
    rows: Callable[[pa.Table], pa.Table] | None = None,
    geo: Callable[[dict], object] | None = None,
) -> str:
    """Change a scene's item, its rows or its GeoParquet metadata in place; returns the data's key."""
    path = scene(output, name)
    content = json.loads(path.read_text())
    key = content["assets"]["data"]["href"].removeprefix("../")
    if item is not None:
        item(content)
    if rows is not None or geo is not None:
        table = pq.read_table(output / key)
        metadata = json.loads(table.schema.metadata[b"geo"])
        if rows is not None:
            table = rows(table)
        if geo is not None:
            geo(metadata)
        table = table.replace_schema_metadata({b"geo": json.dumps(metadata).encode()})
        pq.write_table(table, output / key)
        data = content["assets"]["data"]
        data["file:size"] = (output / key).stat().st_size
        data["file:checksum"] = multihash(output / key)
    path.write_text(json.dumps(content))
    return key


def test_a_byte_that_changed(output):
    """Which neither the size shows nor a column that is looked at."""
    key = edit(output)
    group = pq.read_metadata(output / key).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    (score,) = [column for column in columns if column.path_in_schema == "score"]
    data = bytearray((output / key).read_bytes())
    data[score.data_page_offset + score.total_compressed_size // 2] ^= 1
    (output / key).write_bytes(data)
    (problem,) = checked(output).problems
    assert problem == f"{key}: its SHA-256 is not the file:checksum of items/scene0.json"


def moved(by: float) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        shapes = shapely.from_wkb(table["geometry"].to_numpy())
        moved = shapely.to_wkb(
            shapely.transform(shapes, lambda points: points + np.array([by, 0.0]))
        )
        place = table.schema.get_field_index("geometry")
        return table.set_column(place, "geometry", pa.array(moved, pa.binary()))

    return change


def replaced(name: str, values: Callable[[pa.ChunkedArray], Any]):
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, values(table[name]))

    return change


def set_property(name: str, value: Any) -> Callable[[dict], object]:
    return lambda item: item["properties"].update({name: value})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"item": set_property("datetime", 7)}, "items/scene0.json: .*7 is not"),
        ({"item": lambda i: i.update(geometry={"type": "Blob"})}, "record .*geometry is none"),
        ({"item": lambda i: i.pop("links")}, "'links' is a required property"),
        ({"item": lambda i: i.update(id="other")}, "its id is other"),
        ({"item": lambda i: i.update(collection="else")}, "it names the collection else"),
        ({"item": set_property("geosweep:fingerprint", "x")}, "another job's"),
        (
            {"item": set_property("table:row_count", 3)},
            "table:row_count is 3, its geosweep:rows 54",
        ),
        ({"item": lambda i: i["properties"]["table:columns"].pop()}, "table:columns are not those"),
        ({"item": set_property("geosweep:status", "empty")}, "it is empty with 54 rows"),
        ({"item": set_property("geosweep:rows", 53)}, "54 rows of the scene, items/.* says 53"),
        (
            {"item": lambda i: i["properties"]["geosweep:counts"].update(detections=7)},
            "counts 7 detections in 54 rows",
        ),
        (
            {"item": lambda i: i["properties"]["geosweep:counts"].update(windows=99)},
            r"it has 99 windows, and \d+ that came to an end",
        ),
        (
            {"item": lambda i: i["assets"]["data"].update({"file:size": 5})},
            r"it has \d+ bytes, items/scene0.json says 5",
        ),
        ({"item": lambda i: i["properties"].pop("geosweep:source")}, "no commit record"),
        ({"geo": lambda g: g.update(version="1.0.0")}, "GeoParquet metadata has version 1.0.0"),
        ({"geo": lambda g: g.update(primary_column="g")}, "GeoParquet metadata is broken"),
        ({"geo": lambda g: g["columns"]["geometry"].update(encoding="point")}, "encoding point"),
        ({"geo": lambda g: g["columns"]["geometry"].pop("covering")}, "no bbox covering"),
        ({"geo": lambda g: g["columns"]["geometry"].update(crs={"a": 1})}, "metadata is broken"),
        ({"rows": moved(0.01)}, "54 of 54 rows lie outside the scene's footprint"),
        (
            {"rows": lambda t: pa.concat_tables([t.slice(0, 53), t.slice(0, 1)])},
            "1 rows repeat a detection_id",
        ),
        ({"rows": lambda t: t.drop_columns("score")}, "score missing or of another type"),
        (
            {"rows": replaced("xmin", lambda c: c.cast(pa.float64()))},
            "xmin missing or of another type",
        ),
        (
            {"rows": lambda t: t.select([*t.column_names[1::-1], *t.column_names[2:]])},
            "in another order",
        ),
        (
            {"rows": lambda t: t.add_column(10, "colour", pa.nulls(54, pa.string()))},
            "its column colour .* is no crop model's",
        ),
        (
            {"rows": lambda t: t.add_column(10, "crop_label", pa.nulls(54, pa.string()))},
            "not those that collection.json lists",
        ),
        (
            {"rows": replaced("geometry", lambda c: pa.nulls(54, pa.binary()))},
            "54 of 54 rows have no geometry",
        ),
        (
            {"rows": replaced("scene_id", lambda c: pa.array(["x"] + ["scene0"] * 53))},
            "of its 54 rows items account for 53",
        ),
    ],
)
def test_what_is_wrong_is_named(output, change, problem):
    edit(output, **change)
    check = checked(output)
    assert not check.ok
    assert check.problems
    assert any(re.search(problem, found) for found in check.problems), check.problems
    assert all("\n" not in found for found in check.problems)


def test_files_and_items_that_are_not_there(output):
    key = edit(output)
    (output / key).rename(output / "data" / "other.parquet")
    check = checked(output)
    assert f"items/scene0.json: its data file {key} is missing" in check.problems
    assert any(p.startswith("data/other.parquet: no item points to it") for p in check.problems)
    (output / key).write_text("no parquet")
    assert any("can't be read as parquet" in problem for problem in checked(output).problems)


def test_a_detection_that_stands_in_two_files(output):
    first = pq.read_table(output / edit(output, "scene1"))["detection_id"][0]
    edit(
        output,
        rows=replaced(
            "detection_id", lambda c: pa.chunked_array([pa.array([first]), c.slice(1).chunk(0)])
        ),
    )
    assert checked(output).problems == ["data/: 1 rows repeat a detection_id of another file"]


def test_the_snapshot_has_the_same_items(output):
    scene(output, "empty").unlink()
    edit(output, item=set_property("geosweep:version", "0" * 16))
    problems = checked(output).problems
    assert "items.parquet: it has empty, which is no item: run the job again" in problems
    assert any("its scene0 is of another version" in problem for problem in problems)
    shutil.copy(scene(output, "scene1"), scene(output, "scene2"))
    assert "items.parquet: it lacks scene2: run the job again" in checked(output).problems
    (output / "items.parquet").unlink()
    assert "items.parquet: it is missing: run the job to its end" in checked(output).problems
    (output / "items.parquet").write_text("x")
    assert any("can't be read as stac-geoparquet" in p for p in checked(output).problems)


def test_sums_of_the_report(output):
    path = output / "run.json"
    report = json.loads(path.read_text())
    report["counts"]["detections"] += 1
    path.write_text(json.dumps(report))
    (problem,) = checked(output).problems
    assert problem.startswith("run.json: detections is")
    report["counts"]["scenes"] = 2
    path.write_text(json.dumps(report))
    check = checked(output)
    assert check.ok
    assert any("about 2 scenes, the items about 4" in note for note in check.notes)
    report["counts"]["scenes"] = 5
    path.write_text(json.dumps(report))
    assert checked(output).problems == ["run.json: of its 5 scenes 4 are there"]
    path.unlink()
    assert any("no run.json" in note for note in checked(output).notes)


@pytest.mark.parametrize("text", ["", "[1]", '{"type": "Feature"'])
def test_an_item_that_is_none(output, text):
    scene(output).write_text(text)
    problems = checked(output).problems
    assert "items/scene0.json: it is no JSON object" in problems
    assert any("it has scene0, which is no item" in problem for problem in problems)


def test_a_broken_collection(output):
    path = output / "collection.json"
    content = json.loads(path.read_text())
    content.pop("license")
    path.write_text(json.dumps(content))
    (problem,) = checked(output).problems
    assert problem == "collection.json: 'license' is a required property"


def test_in_an_object_store(sound, tmp_path):
    storage = open_storage(f"memory://{tmp_path}")
    for path in sound.rglob("*"):
        if path.is_file():
            storage.put_file(path.relative_to(sound).as_posix(), path)
    collection = read_collection(storage)
    assert collection is not None
    assert validate_output(storage, collection, fetch_schemas=False).ok
    storage.delete("items.parquet")
    storage.delete(edit(Path(shutil.copytree(sound, tmp_path / "copy"))))
    problems = validate_output(storage, collection, fetch_schemas=False).problems
    assert len(problems) == 2
    assert all("is missing" in problem for problem in problems)


class TestSchemas:
    @pytest.mark.parametrize(
        "change",
        [
            {},
            {"id": 7},
            {"type": "Feature", "bbox": [1, 2]},
            {"links": None},
            {"geometry": {"type": "Point", "coordinates": ["a", 1]}},
            {"assets": {"a": {}}},
            {"properties": {"datetime": None}},
            {"properties": {"datetime": None, "start_datetime": "2022-01-01T00:00:00Z"}},
            {"properties": {"datetime": "2022-01-01T00:00:00Z", "gsd": "1"}},
            {"collection": "c", "links": []},
        ],
    )
    def test_they_say_what_pystac_says(self, change):
        item = make_item("a", "a.tif", collection=None) | {"stac_extensions": []} | change
        problem = StacSchemas(fetch=False).problem(item)
        try:
            pystac.validation.validate_dict(item)
        except STACValidationError:
            assert problem
        else:
            assert problem is None

    def test_extensions_are_fetched_once_and_hold(self, tmp_path):
        schema = {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "required": ["x:number"],
        }
        (tmp_path / "schema.json").write_text(json.dumps(schema))
        item = make_item("a", "a.tif", collection=None)
        with range_server(tmp_path) as server:
            schemas = StacSchemas(fetch=True)
            item["stac_extensions"] = [f"{server}/schema.json", f"{server}/gone.json"]
            for _ in range(3):
                assert schemas.problem(item) == "'x:number' is a required property"
            item["x:number"] = 1
            assert schemas.problem(item) is None
            assert server.requests == 2
        assert schemas.skipped == {f"{server}/gone.json"}

    def test_after_one_server_that_is_away_no_other_is_asked(self, tmp_path):
        with range_server(tmp_path) as server:
            gone = f"{server}/schema.json"
        item = make_item("a", "a.tif", collection=None)
        (tmp_path / "schema.json").write_text("{}")
        with range_server(tmp_path) as server:
            item["stac_extensions"] = [gone, f"{server}/schema.json"]
            schemas = StacSchemas(fetch=True)
            assert schemas.problem(item) is None
            assert server.requests == 0
        assert len(schemas.skipped) == 2

    def test_no_stac(self):
        schemas = StacSchemas(fetch=False)
        assert "type is 'Polygon'" in str(schemas.problem({"type": "Polygon"}))
        assert schemas.problem({"type": "Feature", "stac_version": "1.1.0"})


def test_repeats_are_counted_among_many(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    repeats = Repeats(tmp_path)
    assert repeats.count() == 0
    for part in np.array_split(values, 7):
        repeats.add(part)
    expected = len(values) - len(np.unique(values))
    assert repeats.count() == expected
    repeats.add(values[:123])
    repeats.add(np.zeros(0, np.uint64))
    assert repeats.count() == expected + 123
