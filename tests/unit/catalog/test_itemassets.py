"""Items as providers lay them out: one asset for each band, or one raster among many things."""

from __future__ import annotations

import pytest

from geosweep.catalog import SourceError, open_source

from .helpers import feature_collection, make_item, make_raster, write_json

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
RGB = ["red", "green", "blue"]


def item_of(item_id="one", **assets):
    item = make_item(item_id, "x.tif")
    item["assets"] = assets
    return item


def asset(name, href=None, **fields):
    href = href or f"https://example.invalid/{name}.tif"
    # With a time, so that no server is looked for that doesn't exist.
    return {"href": href, "type": COG, "updated": "2022-06-02T00:00:00Z", **fields}


def earth_search():
    """Keys are common names; a JPEG 2000 twin of each beside it, and a picture of three bands."""
    assets = {}
    for name in (*RGB, "nir"):
        bands = [{"name": name, "common_name": name}]
        assets[name] = asset(name, roles=["data", "reflectance"], **{"eo:bands": bands})
        twin = assets[name] | {"href": f"s3://x/{name}.jp2", "type": "image/jp2"}
        assets[f"{name}-jp2"] = twin
    assets["visual"] = asset("TCI", roles=["visual"], **{"eo:bands": [{"name": n} for n in RGB]})
    assets["thumbnail"] = {"href": "t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    return item_of(**assets)


def planetary_computer():
    """Keys are ESA's numbers; the common names stand in `eo:bands`."""
    numbers = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
    return item_of(
        **{
            key: asset(key, roles=["data"], **{"eo:bands": [{"name": key, "common_name": name}]})
            for key, name in numbers.items()
        }
    )


def stac_1_1():
    """`bands` with `eo:common_name`, in the band or, for its only band, in the asset."""
    return item_of(
        B1=asset("b1", bands=[{"name": "B1", "eo:common_name": "blue"}]),
        B2=asset("b2", bands=[{"name": "B2"}], **{"eo:common_name": "green"}),
        B3=asset("b3", bands=[{"eo:common_name": "red"}]),
        B4=asset("b4", bands=[{"name": "nir"}]),
    )


def stac_0_9():
    """Assets hold positions in the item's list of bands."""
    names = ["blue", "green", "red", "nir"]
    item = item_of(**{f"B{n}": asset(f"B{n}", **{"eo:bands": [n]}) for n in range(4)})
    item["stac_version"] = "0.9.0"
    item["properties"]["eo:bands"] = [
        {"name": f"B{n}", "common_name": c} for n, c in enumerate(names)
    ]
    return item


def opened(tmp_path, *items, **spec):
    side = spec.pop("side_bands", ())
    path = write_json(tmp_path / "items.json", feature_collection(*items))
    return list(open_source({"stac": str(path), **spec}, side_bands=side))


@pytest.mark.parametrize("layout", [earth_search, planetary_computer, stac_1_1, stac_0_9])
def test_bands_by_asset_key_or_common_name(tmp_path, layout):
    item = layout()
    (scene,) = opened(tmp_path, item, bands=RGB, side_bands=["nir", "red"])
    assert list(scene.bands) == [*RGB, "nir"]
    assert scene.error is None
    assert scene.href == scene.bands["red"].href == item["assets"][scene.asset]["href"]
    hrefs = {item["assets"][key]["href"] for key in item["assets"]}
    assert len({part.href for part in scene.bands.values()} & hrefs) == 4
    (turned,) = opened(tmp_path, item, bands=RGB[::-1], side_bands=["nir"])
    assert list(turned.bands) == [*RGB[::-1], "nir"]
    assert turned.source_version != scene.source_version


def test_names_of_the_bands_of_one_raster_are_left_to_the_raster(tmp_path):
    bands = [{"name": name.title(), "common_name": name} for name in RGB]
    item = item_of(image=asset("naip", roles=["data"], **{"eo:bands": bands}))
    (scene,) = opened(tmp_path, item, bands=RGB)
    assert (scene.asset, dict(scene.bands)) == ("image", {})
    (scene,) = opened(tmp_path, earth_search(), asset="visual", bands=RGB)
    assert (scene.asset, dict(scene.bands)) == ("visual", {})
    (scene,) = opened(tmp_path, item, bands=[1, 2, 3])
    assert not scene.bands


def test_the_finest_band_rules_the_grid_and_one_asset_may_be_two_bands(tmp_path):
    fine, coarse = [10, 0, 500000, 0, -10, 4900000], [20, 0, 500000, 0, -20, 4900000]
    item = planetary_computer()
    for key in ("B04", "B08"):
        item["assets"][key] |= {"proj:transform": coarse, "proj:shape": [32, 24]}
    item["assets"]["B03"] |= {"proj:transform": fine, "proj:shape": [64, 48]}
    (scene,) = opened(tmp_path, item, bands=["red", "B04", "green"])
    assert (scene.transform, scene.shape) == (tuple(fine), (64, 48))
    assert scene.bands["red"] == scene.bands["B04"]
    (scene,) = opened(tmp_path, item, bands=["red", "red", "red"])
    assert (scene.transform, scene.shape, list(scene.bands)) == (tuple(coarse), (32, 24), ["red"])


def test_grids_that_the_item_does_not_tell_are_read_from_the_files(tmp_path):
    item = earth_search()
    for key in ("proj:code", "proj:transform", "proj:shape"):
        del item["properties"][key]
    for name in (*RGB, "nir"):
        item["assets"][name]["href"] = str(make_raster(tmp_path / f"{name}.tif", count=3))
    (scene,) = opened(tmp_path, item, bands=RGB)
    assert (scene.crs, scene.shape, scene.error) == ("EPSG:32612", (64, 48), None)
    (tmp_path / "green.tif").unlink()
    (scene,) = opened(tmp_path, item, bands=RGB)
    assert "green.tif does not exist" in scene.error
    item["properties"] |= {
        "proj:code": "EPSG:32612",
        "proj:transform": [10, 0, 500000, 0, -10, 4900000],
        "proj:shape": [64, 48],
    }
    (scene,) = opened(tmp_path, item, bands=RGB)
    assert "green.tif does not exist" in scene.error


@pytest.mark.parametrize(
    ("make", "spec", "says"),
    [
        (earth_search, {}, r"\(red, red-jp2.*\): set source\.asset.*\[red, green, blue\]"),
        (planetary_computer, {}, r"source\.bands to assets of one band each: \[red, green, blue\]"),
        (earth_search, {"bands": ["red", "green", "violet"]}, r"'violet'.*source\.bands"),
        (earth_search, {"bands": RGB, "side_bands": ["swir"]}, r"band 'swir'.*crop_models\.bands"),
        (dict, {}, r"no raster among its assets \(none\)"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_said_with_a_remedy(tmp_path, make, spec, says):
    item = make() or item_of()
    with pytest.raises(SourceError, match=says):
        opened(tmp_path, item, **spec)
    # Among others it is that item's fault alone.
    good = earth_search() | {"id": "good"} if spec else item_of("good", image=asset("x"))
    if "swir" in says:
        good["assets"]["swir"] = asset("swir")
    if "violet" in says:
        good["assets"]["violet"] = asset("violet")
    first, second = opened(tmp_path, good, item, **spec)
    assert first.error is None
    assert second.error is not None and item["id"] in second.error


def test_a_band_in_several_resolutions_is_not_guessed(tmp_path):
    assets = {
        f"B04_{gsd}": asset(gsd, **{"eo:bands": [{"name": "B04", "common_name": "red"}]})
        for gsd in ("10m", "20m")
    }
    with pytest.raises(SourceError, match=r"'red' in several assets \(B04_10m, B04_20m\)"):
        opened(tmp_path, item_of(**assets), bands=["red"] * 3)


def test_mixed_collections_each_by_its_own_layout(tmp_path):
    naip = item_of("naip", image=asset("naip")) | {"collection": "naip"}
    scenes = opened(tmp_path, naip, earth_search(), planetary_computer() | {"id": "pc"}, bands=RGB)
    assert [len(scene.bands) for scene in scenes] == [0, 3, 3]
