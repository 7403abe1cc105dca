"""The frozen plan: every scene comes back as it was, without what grants access to it."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pyarrow.parquet as pq
import pystac
import pytest
import rustac
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geosweep.catalog import Access, Scene, SideAsset, open_storage
from geosweep.catalog.errors import OutputError, SourceError
from geosweep.catalog.geoparquet import read_items
from geosweep.catalog.planfile import PLAN, PlanFile

WKT = 'LOCAL_CS["a grid of nobody\'s",UNIT["metre",1]]' + " " * 60

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
maybe = st.none() | texts
hrefs = st.sampled_from(
    ["/data/größe/a.tif", "https://example.com/a b.tif", "s3://bucket/a.tif", "/vsizip/a.zip/b.tif"]
)
accesses = st.builds(Access, maybe, st.booleans())
side_assets = st.dictionaries(
    st.text(min_size=1, max_size=5, alphabet="abcxyz0"),
    st.builds(SideAsset, hrefs, maybe, maybe, accesses),
    max_size=3,
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scenes = st.builds(
    Scene,
    id=texts,
    href=hrefs,
    item_id=texts,
    collection=maybe,
    asset=maybe,
    datetime=st.none()
    | st.datetimes(
        datetime(1, 1, 2), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3))])
    ),
    updated=maybe
    | st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.123456789+02:00"]),
    checksum=maybe | st.just("1220" + "ab" * 32),
    footprint=st.sampled_from(
        [
            None,
            shapely.box(-110.1, 44, -110, 44.1 + 1e-13),
            shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]),
            shapely.from_wkt("POLYGON ((0 0, 1 0, 1 1, 0 0), (.5 .2, .6 .2, .6 .3, .5 .2))"),
        ]
    ),
    crs=st.none() | st.sampled_from(["EPSG:32612", "OGC:CRS84", "+proj=utm +zone=12", "", WKT]),
    transform=st.none() | st.tuples(*[numbers] * 6),
    shape=st.none() | st.tuples(st.integers(1, 2**40), st.integers(1, 10)),
    error=maybe,
    assets=side_assets,
    access=accesses,
    bands=side_assets,
)


def plain(name, **fields):
    return Scene(id=name, href=f"https://example.com/{name}.tif", item_id=name, **fields)


def memory():
    return open_storage(f"memory://{uuid.uuid4()}")


@settings(max_examples=60)
@given(st.lists(scenes, max_size=5), st.lists(scenes, max_size=2))
def test_every_field_of_every_scene_survives(planned, retained):
    storage = memory()
    with PlanFile.freeze(storage, iter(planned), key="k", retained=iter(retained)) as frozen:
        assert list(frozen.scenes()) == planned
    with PlanFile.open(storage) as plan:
        assert list(plan.scenes()) == planned
        assert list(plan.retained()) == retained
        assert (plan.count, plan.key, plan.hrefs) == (len(planned), "k", "whole")
        for before, after in zip(planned, plan.scenes(), strict=True):
            assert after.source_version == before.source_version
            assert list(after.bands) == list(before.bands)


def test_more_scenes_than_one_batch_keep_their_order():
    storage = memory()
    many = (
        plain(f"s{number}", datetime=datetime(2024, 1, 1, tzinfo=UTC)) for number in range(9000)
    )
    plan = PlanFile.freeze(storage, many, key="k", retained=[plain("gone")], duplicates=lambda: 7)
    again = PlanFile.open(storage)
    for one in (plan, again):
        assert [scene.id for scene in one.scenes()] == [f"s{number}" for number in range(9000)]
        assert [scene.id for scene in one.retained()] == ["gone"]
        assert (one.count, one.duplicates) == (9000, 7)
        both = zip(one.scenes(), one.scenes(), strict=True)  # two readers at a time
        assert all(a == b for a, b in both)
    assert plan.head == again.head


SECRETS = ("hunter2", "SIGNATURE", "tokentoken")


def signed(name):
    """A scene with every kind of credential in every place."""
    return replace(
        plain(name, error="https://user:hunter2@example.com/a.tif can't be opened"),
        href="https://user:hunter2@example.com/a.tif?X-Amz-Signature=SIGNATURE&version=3",
        assets={"nir": SideAsset("https://example.com/n.tif?sig=SIGNATURE&se=2024")},
        bands={"red": SideAsset("/vsicurl?url=https%3A%2F%2Fe.com%2Fr.tif&header.X=tokentoken")},
    )


def test_credentials_never_reach_the_file_but_the_run_that_froze_it_has_them(tmp_path):
    given_, storage = [plain("a"), signed("b")], open_storage(tmp_path)
    plan = PlanFile.freeze(storage, given_, key="k", retained=[signed("c")])
    again = PlanFile.open(storage)
    text = repr([*again.scenes(), *again.retained(), *read_items(tmp_path / PLAN)])
    content = (tmp_path / PLAN).read_bytes()
    for secret in SECRETS:
        assert secret not in text
        assert secret.encode() not in content
    assert [scene.source_version for scene in again.scenes()] == [
        scene.source_version for scene in given_
    ]
    assert list(again.scenes())[1].href == "https://example.com/a.tif?version=3"
    assert [scene.href for scene in plan.scenes()] == [scene.href for scene in given_]
    assert list(plan.scenes())[1].bands == given_[1].bands
    assert next(plan.retained()).assets == signed("c").assets
    assert (plan.hrefs, again.hrefs) == ("whole", "signed")


def test_a_parameter_that_may_be_a_secret_is_cut_and_the_plan_says_so(tmp_path):
    storage = open_storage(tmp_path)
    scene = replace(plain("a"), href="https://example.com/wms?k=hunter2")
    assert list(PlanFile.freeze(storage, [scene], key="k").scenes()) == [scene]
    again = PlanFile.open(storage)
    assert again.hrefs == "cut"
    assert [one.href for one in again.scenes()] == ["https://example.com/wms"]
    assert b"hunter2" not in (tmp_path / PLAN).read_bytes()


@pytest.mark.parametrize(
    ("times", "latest"),
    [
        (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+02:00"], "2024-01-01T00:00:00Z"),
        (["2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00Z"], "2024-01-01T00:00:00.5Z"),
        (["2024-01-01T00:00:00Z", None], None),
        (["2024-01-01T00:00:00Z", "yesterday"], None),
        ([], None),
    ],
)
def test_the_watermark_is_the_sources_own_latest_word(times, latest):
    storage = memory()
    planned = [plain(f"s{n}", updated=time) for n, time in enumerate(times)]
    gone = [plain("gone", updated="2030-01-01T00:00:00Z")]
    PlanFile.freeze(storage, planned, key="k", retained=gone)
    assert PlanFile.open(storage).watermark == latest


def test_the_area_of_interest_comes_back_exactly():
    storage, area = memory(), shapely.box(-110.1, 44, -110, 44.1).buffer(0.1)
    PlanFile.freeze(storage, [], key="k", area=area)
    plan = PlanFile.open(storage)
    assert plan.area == area
    assert PlanFile.freeze(storage, [], key="k").area is None
    assert list(plan.scenes()) == []


def test_everybody_reads_it_as_items(tmp_path):
    scene = replace(
        plain("a", collection="c", asset="visual", datetime=datetime(2024, 5, 1, tzinfo=UTC)),
        footprint=shapely.box(-110.1, 44, -110, 44.1),
        crs="EPSG:32612",
        transform=(0.1, 0.0, 5e5, 0.0, -0.1, 5e6),
        shape=(10, 20),
        updated="2024-06-01T00:00:00Z",
        checksum="1220" + "ab" * 32,
        access=Access("us-west-2", True),
    )
    undated = plain("b", error="gone")
    PlanFile.freeze(open_storage(tmp_path), [scene, undated], key="k")
    ours = list(read_items(tmp_path / PLAN))

    async def read():
        return await rustac.read(str(tmp_path / PLAN))

    theirs = asyncio.run(read())["features"]
    for items in (ours, theirs):
        first, second = (pystac.Item.from_dict(item) for item in items)
        assert (first.id, first.collection_id, first.datetime) == ("a", "c", scene.datetime)
        assert first.assets["data"].href == scene.href
        assert first.assets["data"].extra_fields["file:checksum"] == scene.checksum
        assert first.assets["data"].extra_fields["updated"] == scene.updated
        assert first.assets["data"].extra_fields["storage:region"] == "us-west-2"
        assert first.properties["proj:code"] == "EPSG:32612"
        assert first.properties["geosweep:scene_id"] == "a"
        assert first.bbox == pytest.approx([-110.1, 44, -110, 44.1])
        assert shapely.geometry.shape(first.geometry).equals(scene.footprint)
        # rustac's word for no geometry is an empty polygon.
        assert second.geometry in (None, {"type": "Polygon", "coordinates": []})
        assert (second.bbox, second.datetime) == (None, None)
        assert second.properties["start_datetime"] == second.properties["end_datetime"]
        assert second.properties["geosweep:error"] == "gone"
    assert pq.read_metadata(tmp_path / PLAN).num_rows == 2


def test_a_source_that_breaks_off_leaves_the_old_plan(tmp_path):
    storage = open_storage(tmp_path)

    def broken():
        yield plain("b")
        raise SourceError("the server hung up")

    assert PlanFile.open(storage) is None
    with pytest.raises(SourceError, match="hung up"):
        PlanFile.freeze(storage, broken(), key="new")
    assert list(tmp_path.iterdir()) == []
    PlanFile.freeze(storage, [plain("a")], key="old")
    with pytest.raises(SourceError, match="hung up"):
        PlanFile.freeze(storage, broken(), key="new")
    assert PlanFile.open(storage).key == "old"


@pytest.mark.parametrize("content", [b"", b"nothing like parquet", "items"])
def test_a_file_that_is_no_plan_is_one_sentence(tmp_path, content):
    if content == "items":
        from geosweep.catalog.geoparquet import write_items

        write_items([], tmp_path / PLAN)
    else:
        (tmp_path / PLAN).write_bytes(content)
    with pytest.raises(OutputError, match=r"plan\.parquet is not a plan of geosweep: remove it"):
        PlanFile.open(open_storage(tmp_path))
