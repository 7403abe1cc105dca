from __future__ import annotations

import hashlib
import json
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
import rustac
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geosweep.catalog import (
    JobError,
    OutputError,
    RasterError,
    SourceError,
    create_catalog,
    open_source,
    open_storage,
)
from geosweep.catalog._itemtimes import TimeRule
from geosweep.catalog._rasteritem import _ground_size
from geosweep.catalog.cogify import cog_problems, convert_to_cog
from geosweep.catalog.geoparquet import read_items
from geosweep.pipeline._geo import ground_sample_distance
from tests.servers import range_server

from .helpers import UTM, make_raster

TAGGED = {"TIFFTAG_DATETIME": "2021:07:03 10:20:30"}


def created(rasters, output: Path, **options) -> list[dict]:
    """The items that `create_catalog` writes, checked against STAC's schema."""
    names = [str(name) for name in (rasters if isinstance(rasters, list) else [rasters])]
    create_catalog(names, output, **options)
    if output.suffix == ".json":
        items = json.loads(output.read_text())["features"]
    else:
        items = list(read_items(output))
    for item in items:
        # The core schemas come with pystac; those of extensions would have to be fetched.
        plain = json.loads(json.dumps(item)) | {"stac_extensions": []}
        pystac.validation.validate_dict(plain)
    return items


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_item_says_what_the_header_says(tmp_path, suffix):
    path = make_raster(tmp_path / "a b.tif", tags=TAGGED, nodata=0)
    (item,) = created(path, tmp_path / f"items.{suffix}")
    properties, asset = item["properties"], item["assets"]["image"]
    assert item["id"] == "a_b"
    assert properties["datetime"] == "2021-07-03T10:20:30Z"
    assert properties["proj:code"] == "EPSG:32612"
    assert properties["proj:shape"] == [64, 48]
    assert properties["proj:transform"] == [10, 0, 500000, 0, -10, 4900000]
    assert properties["proj:bbox"] == [500000, 4899360, 500480, 4900000]
    assert properties["gsd"] == 10
    assert asset["href"] == str(path)
    assert asset["type"] == pystac.MediaType.GEOTIFF
    assert asset["bands"] == [
        {"name": c, "data_type": "uint8", "nodata": 0, "eo:common_name": c}
        for c in ("red", "green", "blue")
    ]
    data = path.read_bytes()
    assert asset["file:size"] == len(data)
    assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
    (scene,) = open_source(path)
    footprint = shapely.geometry.shape(item["geometry"])
    assert footprint.equals(scene.footprint)
    assert footprint.exterior.is_ccw
    assert item["bbox"] == list(footprint.bounds)


def test_scenes_are_those_of_the_rasters_and_need_no_header(tmp_path):
    odd = rasterio.CRS.from_proj4("+proj=laea +lat_0=44.1 +lon_0=-110.3 +datum=WGS84 +units=m")
    for name, crs in (("a/x", "EPSG:32612"), ("b/x", "EPSG:32612"), ("b/odd", odd)):
        make_raster(tmp_path / "in" / f"{name}.tif", crs=crs, tags=TAGGED)
    items = tmp_path / "items.parquet"
    create_catalog([str(tmp_path / "in")], items)
    plain = list(open_source(tmp_path / "in"))
    for path in (tmp_path / "in").rglob("*.tif"):
        path.write_bytes(b"not a raster any more")  # so that opening one would fail
    scenes = list(open_source(items))
    for scene, other in zip(scenes, plain, strict=True):
        assert scene.error is None
        for name in ("id", "href", "datetime", "transform", "shape"):
            assert getattr(scene, name) == getattr(other, name)
        assert rasterio.CRS.from_string(scene.crs) == rasterio.CRS.from_string(other.crs)
        assert scene.footprint.equals(other.footprint)


def test_rustac_reads_the_parquet_file(tmp_path):
    make_raster(tmp_path / "in" / "a.tif", tags=TAGGED)
    make_raster(tmp_path / "in" / "b.tif", tags=TAGGED, nodata=7)
    ours = created(tmp_path / "in", tmp_path / "items.parquet")
    theirs = rustac.read_sync(str(tmp_path / "items.parquet"))["features"]
    assert [item["id"] for item in theirs] == ["a", "b"]
    assert theirs[1]["assets"]["image"]["bands"] == ours[1]["assets"]["image"]["bands"]


def test_bands_of_every_kind(tmp_path):
    path = tmp_path / "bands.tif"
    profile = {"driver": "GTiff", "count": 2, "dtype": "float32", "nodata": np.nan}
    with rasterio.open(
        path, "w", height=8, width=8, crs="EPSG:32612", transform=UTM, **profile
    ) as raster:
        raster.write(np.zeros((2, 8, 8), "float32"))
        raster.descriptions = ("height", None)
        raster.scales, raster.offsets = (0.5, 1), (3, 0)
        raster.units = ("m", "")
    (item,) = created(path, tmp_path / "items.json", datetime="2022-06-01T00:00:00Z")
    assert item["assets"]["image"]["bands"] == [
        {
            "name": "height",
            "data_type": "float32",
            "nodata": "nan",
            "unit": "m",
            "raster:scale": 0.5,
            "raster:offset": 3,
        },
        {"name": "b2", "data_type": "float32", "nodata": "nan"},
    ]
    assert any("raster/v2" in extension for extension in item["stac_extensions"])
    (item,) = created(path, tmp_path / "items.parquet", datetime="2022-06-01T00:00:00Z")
    assert item["assets"]["image"]["bands"][1] == {
        "name": "b2",
        "data_type": "float32",
        "nodata": "nan",
    }


def test_nan_and_numbers_do_not_share_a_column(tmp_path):
    names = [
        make_raster(tmp_path / "a.tif", dtype="float32", nodata=np.nan),
        make_raster(tmp_path / "b.tif", nodata=0),
    ]
    with pytest.raises(SourceError, match=r"name a \.json file"):
        created(names, tmp_path / "items.parquet", datetime="2022-06-01")
    assert len(created(names, tmp_path / "items.json", datetime="2022-06-01")) == 2


def test_nodata_of_every_size_shares_a_column(tmp_path):
    values = [0, -9999, 0.5, -3.4028234663852886e38, None]
    names = [
        make_raster(tmp_path / f"{number}.tif", dtype="float32", nodata=value)
        for number, value in enumerate(values)
    ]
    for suffix in ("json", "parquet"):
        items = created(names, tmp_path / f"items.{suffix}", datetime="2022-06-01")
        bands = [item["assets"]["image"]["bands"][0] for item in items]
        assert [band.get("nodata") for band in bands] == values


def test_raster_without_georeferencing_has_null_geometry(tmp_path):
    path = make_raster(tmp_path / "plain.png", driver="PNG", crs=None, transform=Affine.identity())
    (item,) = created(path, tmp_path / "items.json", datetime="2022-06-01")
    assert item["geometry"] is None and "bbox" not in item
    assert item["assets"]["image"]["type"] == "image/png"
    assert "gsd" not in item["properties"]


def test_box_across_the_antimeridian(tmp_path):
    across = Affine(1000, 0, 750000, 0, -1000, 100000)
    path = make_raster(tmp_path / "x.tif", crs="EPSG:32660", transform=across, size=(100, 100))
    (item,) = created(path, tmp_path / "items.json", datetime="2022-06-01")
    west, south, east, north = item["bbox"]
    assert 179 < west < 180 and -180 < east < -179
    assert item["geometry"]["type"] == "MultiPolygon"
    assert (south, north) == pytest.approx((0, 0.9), abs=0.01)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32612", Affine(0.6, 0, 500000, 0, -0.6, 4900000)),
        ("EPSG:4326", Affine(1e-5, 0, -110, 0, -1e-5, 60)),
        ("EPSG:3857", Affine(1, 0, -12e6, 0, -1, 8e6)),
        ("EPSG:2263", Affine(0.5, 0, 980000, 0, -0.5, 200000)),  # feet
        ("EPSG:32612", Affine.translation(5e5, 4.9e6) @ Affine.rotation(30) @ Affine.scale(2, -2)),
    ],
)
def test_gsd_is_that_of_the_sweep(crs, transform):
    shape = (500, 300)
    ours = _ground_size(shape, tuple(transform)[:6], crs)
    assert ours == pytest.approx(ground_sample_distance(transform, shape[::-1], crs), rel=1e-3)


def test_gsd_in_degrees_follows_the_latitude():
    north = _ground_size((10, 10), (1e-5, 0, 10, 0, -1e-5, 60), "EPSG:4326")
    equator = _ground_size((10, 10), (1e-5, 0, 10, 0, -1e-5, 0), "EPSG:4326")
    assert equator == pytest.approx(1.109, abs=2e-3)
    assert north == pytest.approx(equator * np.sqrt(0.5), rel=1e-2)


class TestTimes:
    def test_given(self):
        assert TimeRule("2022-06-01T00:00:00Z").properties("a.tif", None) == {
            "datetime": "2022-06-01T00:00:00Z"
        }
        assert TimeRule("2022-06").properties("a.tif", None) == {
            "datetime": None,
            "start_datetime": "2022-06-01T00:00:00Z",
            "end_datetime": "2022-06-30T23:59:59.999999Z",
        }

    @pytest.mark.parametrize(
        ("pattern", "name", "day"),
        [
            ("%Y%m%d", "m_4411035_ne_12_060_20220705.tif", "2022-07-05T00:00:00Z"),
            ("%Y%m%d", "x20223512_20220705T101112.tif", "2022-07-05T00:00:00Z"),
            ("%Y%m%dT%H%M%S", "20220705T101112_B4.tif", "2022-07-05T10:11:12Z"),
            ("_%Y_", "https://h/2019/T_2021_x.tif?sig=2", "2021-01-01T00:00:00Z"),
            ("%Y%j", "LC8_2022032_x.tif", "2022-02-01T00:00:00Z"),
        ],
    )
    def test_in_the_name(self, pattern, name, day):
        assert TimeRule(pattern=pattern).properties(name, None) == {"datetime": day}

    @given(st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)), st.text("ab_-", max_size=5))
    def test_any_day_in_any_name(self, day, text):
        name = f"{text}{day:%Y-%m-%d}{text}.tif"
        (found,) = TimeRule(pattern="%Y-%m-%d").properties(name, None).values()
        assert found[:10] == f"{day:%Y-%m-%d}"

    def test_tag_or_time_of_change(self, tmp_path):
        path = make_raster(tmp_path / "a.tif")
        os.utime(path, (1e9, 1e9))
        tagged = datetime(2021, 1, 1, tzinfo=UTC)
        rule = TimeRule(mtime=True)
        assert rule.properties(str(path), tagged)["datetime"] == "2021-01-01T00:00:00Z"
        assert rule.properties(str(path), None)["datetime"] == "2001-09-09T01:46:40Z"

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"given": "yesterday"}, "'yesterday' is not a time"),
            ({"given": "2022/.."}, "is open"),
            ({"given": "2022", "mtime": True}, "leave the other"),
            ({"pattern": "%Y", "mtime": True}, "not both"),
            ({"pattern": "%Y%q"}, "may hold %Y, %m"),
            ({"pattern": "100%"}, "may hold"),
            ({"pattern": "%m%d"}, "needs a year"),
            ({"pattern": "%Y%Y"}, "no directive twice"),
        ],
    )
    def test_mistakes(self, options, reason):
        with pytest.raises(JobError, match=reason):
            TimeRule(**options)

    def test_no_time(self):
        with pytest.raises(RasterError, match=r"^a\.tif has no tag .* give --datetime"):
            TimeRule().properties("a.tif", None)
        with pytest.raises(RasterError, match="no date like %Y in its name"):
            TimeRule(pattern="%Y").properties("a20220705.tif", None)


def test_bad_rasters_are_listed_and_the_rest_is_written(tmp_path):
    good = make_raster(tmp_path / "good.tif", tags=TAGGED)
    untimed = make_raster(tmp_path / "untimed.tif")
    (tmp_path / "text.tif").write_text("hello")
    names = [str(path) for path in (untimed, good, tmp_path / "text.tif", tmp_path / "gone.tif")]
    report = create_catalog([*names, names[0]], tmp_path / "items.parquet")
    assert (report.total, report.items, report.repeated) == (4, 1, 1)
    assert [href for href, _ in report.failed] == [names[0], *names[2:]]
    assert "give --datetime" in report.failed[0][1]
    assert "does not exist" in report.failed[2][1]
    assert [item["id"] for item in read_items(tmp_path / "items.parquet")] == ["good"]


def test_nothing_is_written_without_an_item(tmp_path):
    for name in "ab":
        make_raster(tmp_path / f"{name}.tif")
    with pytest.raises(SourceError, match=r"a\.tif has no tag .*\(and so on, 2 rasters\)"):
        create_catalog([str(tmp_path)], tmp_path / "items.parquet")
    assert not (tmp_path / "items.parquet").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        create_catalog([str(tmp_path)], tmp_path / "file" / "items.json", datetime="2022")
    with pytest.raises(JobError, match=r"neither \.parquet nor \.json"):
        create_catalog([str(tmp_path)], tmp_path / "items.csv")


def test_items_in_order_whatever_takes_long(tmp_path):
    for number in range(40):
        make_raster(tmp_path / "in" / f"{number:02}.tif", size=(8, 8), tags=TAGGED)
    seen = []
    report = create_catalog(
        [str(tmp_path / "in")], tmp_path / "items.json", progress=lambda *done: seen.append(done)
    )
    items = json.loads((tmp_path / "items.json").read_text())["features"]
    assert [item["id"] for item in items] == [f"{number:02}" for number in range(40)]
    assert report.items == 40
    assert seen == [(number, 40) for number in range(41)]


def test_remote_rasters_and_an_object_store(tmp_path):
    path = make_raster(tmp_path / "far.tif", tags=TAGGED)
    output = f"memory://{tmp_path}/items.json"
    with range_server(tmp_path) as server:
        url = f"{server}/far.tif"
        create_catalog([f"{url}?sig=HUSHHUSH"], output)
        text = open_storage(f"memory://{tmp_path}").get("items.json").decode()
        (item,) = json.loads(text)["features"]
    assert "HUSH" not in text
    assert item["assets"]["image"]["href"] == url
    assert item["assets"]["image"]["file:size"] == path.stat().st_size
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert item["assets"]["image"]["file:checksum"] == f"1220{digest}"


def test_gdals_own_paths_have_no_checksum(tmp_path):
    path = make_raster(tmp_path / "a.tif", tags=TAGGED)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.tif")
    name = f"/vsizip/{tmp_path}/a.zip/a.tif"
    with pytest.raises(SourceError, match="give its URL or --no-checksum"):
        created(name, tmp_path / "items.json")
    (item,) = created(name, tmp_path / "items.json", checksum=False)
    (scene,) = open_source(tmp_path / "items.json")
    assert scene.href == item["assets"]["image"]["href"] == name


def test_without_checksum_remote_pixels_stay_where_they_are(tmp_path):
    make_raster(
        tmp_path / "far.tif", size=(1200, 1200), tags=TAGGED, driver="COG", overviews="NONE"
    )
    with range_server(tmp_path) as server:
        (item,) = created(f"{server}/far.tif", tmp_path / "items.json", checksum=False)
        assert server.sent < 200_000
    assert "file:checksum" not in item["assets"]["image"]


class TestCogs:
    @pytest.mark.parametrize(
        ("options", "faults"),
        [
            ({"driver": "COG"}, []),
            ({"size": (300, 300), "driver": "COG"}, []),
            ({}, ["tiles", "overviews", "header"]),
            ({"tiled": True}, ["overviews", "header"]),
            ({"driver": "COG", "overviews": "NONE"}, ["overviews"]),
            ({"driver": "PNG", "crs": None, "transform": Affine.identity()}, ["it is PNG"]),
        ],
    )
    def test_what_is_no_cog(self, tmp_path, options, faults):
        path = make_raster(tmp_path / "x.tif", **({"size": (600, 1100)} | options))
        with rasterio.open(path) as raster:
            problems = cog_problems(raster)
        assert len(problems) == len(faults)
        for problem, fault in zip(problems, faults, strict=True):
            assert fault in problem

    def test_overviews_added_later_scatter_the_header(self, tmp_path):
        path = make_raster(tmp_path / "x.tif", size=(600, 1100), driver="COG", overviews="NONE")
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
            raster.build_overviews([2, 4])
        with rasterio.open(path) as raster:
            (problem,) = cog_problems(raster)
        assert "scattered" in problem

    def test_strips_cost_what_is_said(self, tmp_path):
        path = make_raster(tmp_path / "x.tif", size=(600, 4000), blockysize=1)
        with rasterio.open(path) as raster:
            assert "decodes 10 times as many" in cog_problems(raster)[0]

    def test_converted_without_loss_and_once(self, tmp_path):
        big = make_raster(
            tmp_path / "in" / "big.tif", size=(700, 1100), tags=TAGGED, nodata=3, compress="lzw"
        )
        good = make_raster(tmp_path / "in" / "good.tif", size=(700, 700), driver="COG", tags=TAGGED)
        small = make_raster(tmp_path / "in" / "small.tif", tags=TAGGED)
        output, folder = tmp_path / "items.json", tmp_path / "in" / "cogs"
        report = create_catalog([str(tmp_path / "in")], output)
        assert [href for href, _ in report.not_cog] == [str(big)]

        report = create_catalog([str(tmp_path / "in")], output, cogify=folder)
        assert (report.total, report.converted, report.kept, report.not_cog) == (3, 2, 0, [])
        items = json.loads(output.read_text())["features"]
        hrefs = [item["assets"]["image"]["href"] for item in items]
        assert hrefs == [str(folder / "big.tif"), str(good), str(folder / "small.tif")]
        assert {item["assets"]["image"]["type"] for item in items} == {pystac.MediaType.COG}
        for source, target in ((big, hrefs[0]), (small, hrefs[2])):
            with rasterio.open(source) as one, rasterio.open(target) as other:
                assert np.array_equal(one.read(), other.read())
                assert (one.nodata, one.crs, one.transform) == (
                    other.nodata,
                    other.crs,
                    other.transform,
                )
                assert other.tags()["TIFFTAG_DATETIME"] == TAGGED["TIFFTAG_DATETIME"]
                assert other.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert sorted(path.name for path in folder.iterdir()) == ["big.tif", "small.tif"]

        made = (folder / "big.tif").stat().st_ino
        report = create_catalog([str(tmp_path / "in")], output, cogify=folder)
        assert (report.total, report.converted, report.kept) == (3, 0, 2)
        assert (folder / "big.tif").stat().st_ino == made
        assert json.loads(output.read_text())["features"] == items

    def test_a_changed_source_or_a_torn_file_is_converted_again(self, tmp_path):
        source = make_raster(tmp_path / "a.tif", size=(600, 600))
        target = tmp_path / "cogs" / "a.tif"
        assert convert_to_cog(str(source), target)
        assert not convert_to_cog(str(source), target)
        os.utime(source, (1e9, 1e9))
        assert convert_to_cog(str(source), target)
        target.write_bytes(target.read_bytes()[:100])
        os.utime(target, (1e9, 1e9))
        assert convert_to_cog(str(source), target)
        assert not convert_to_cog(str(source), target)

    def test_a_damaged_source_leaves_nothing(self, tmp_path):
        source = make_raster(tmp_path / "a.tif", size=(600, 600), compress="deflate")
        data = bytearray(source.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
        source.write_bytes(data)
        with pytest.raises(RasterError, match=r"a\.tif can't be converted"):
            convert_to_cog(str(source), tmp_path / "cogs" / "a.tif")
        assert not list((tmp_path / "cogs").iterdir())

    def test_a_folder_that_is_a_file(self, tmp_path):
        make_raster(tmp_path / "a.tif", tags=TAGGED)
        (tmp_path / "cogs").write_text("x")
        with pytest.raises(OutputError, match="is a file"):
            create_catalog(
                [str(tmp_path / "a.tif")], tmp_path / "items.json", cogify=tmp_path / "cogs"
            )
