"""Hrefs are signed just before the read, and anew when a signature has expired."""

from __future__ import annotations

import logging
import sys

import pytest
import rasterio

from geosweep.catalog import open_source
from geosweep.catalog.errors import RasterError, SourceError
from geosweep.catalog.header import read_header
from geosweep.catalog.signing import signed_href
from geosweep.pipeline._imagery import read_preview
from geosweep.pipeline.raster import RasterSource
from tests.rasters import LAYOUTS, textured, write_raster
from tests.servers import range_server
from tests.unit.catalog.helpers import make_item, write_json

SIGN = "tests.signers:from_server"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A COG of 12 block rows, more than 800 kB of it."""
    folder = tmp_path_factory.mktemp("signed")
    layout = {**LAYOUTS["cog-deflate"], "blocksize": 128}
    write_raster(folder / "a.tif", textured(1536, 512), **layout)
    (folder / "box").mkdir()
    write_raster(folder / "box" / "a.tif", textured(64, 64), **layout)
    return folder


@pytest.fixture
def server(folder):
    with range_server(folder) as server:
        server.uses = 10_000
        yield server


def test_the_header_is_read_with_a_signature(server):
    href = f"{server}/a.tif"
    with pytest.raises(RasterError, match=r"a\.tif can't be opened"):
        read_header(href)
    assert read_header(href, sign=SIGN).shape == (1536, 512)
    # A signature that came with the href, expired or not, is not what it is read with.
    assert read_header(f"{href}?sig=s3cret-old&se=2020", sign=SIGN).shape == (1536, 512)


def test_what_is_planned_is_unsigned(server, tmp_path):
    item = make_item("a", f"{server}/a.tif?sig=s3cret-old", updated="2022-01-01T00:00:00Z")
    path = write_json(tmp_path / "items.json", item)
    (scene,) = open_source({"stac": str(path), "sign": SIGN})
    assert scene.href == f"{server}/a.tif"
    (raster,) = open_source({"rasters": f"{server}/a.tif?sig=s3cret-old", "sign": SIGN})
    assert raster.error is None and raster.href == f"{server}/a.tif"
    # Without a signer there is no other way to read it than as it came.
    (kept,) = open_source({"stac": str(path)})
    assert kept.href.endswith("?sig=s3cret-old")


@pytest.mark.parametrize("uses", [6, 12])
def test_signatures_that_expire_while_a_scene_is_read_are_replaced(folder, uses, caplog):
    caplog.set_level(logging.DEBUG)
    with rasterio.open(folder / "a.tif") as truth:
        wanted = truth.read()
    # A server of its own: another port is another place in GDAL's cache.
    with range_server(folder) as server:
        server.uses = uses
        with RasterSource(f"{server}/a.tif", sign=SIGN) as source:
            for top in range(0, 1536, 128):
                strip = source.read(0, top, 512, top + 128)
                assert (strip.data == wanted[:, top : top + 128]).all()
                assert not strip.damaged
        # Each failure asked for one more.
        assert 2 <= len(server.tokens) <= 13
    assert "s3cret" not in caplog.text


def test_a_signature_revoked_in_the_middle_is_replaced_once(folder):
    with range_server(folder) as server:
        server.uses = 10_000
        with RasterSource(f"{server}/a.tif", sign=SIGN) as source:
            source.read(0, 0, 512, 128)
            server.revoke()
            source.read(0, 1408, 512, 1536)
        assert len(server.tokens) == 2


def test_what_signatures_do_not_mend_fails_after_one_more(folder, caplog):
    caplog.set_level(logging.DEBUG)
    with range_server(folder) as server:
        server.uses = 10_000
        with pytest.raises(RasterError, match=r"none\.tif can't be opened") as caught:
            RasterSource(f"{server}/none.tif", sign=SIGN)
        assert len(server.tokens) == 2
        with pytest.raises(RasterError, match=r"a\.tif can't be opened") as stale:
            RasterSource(f"{server}/a.tif", sign="tests.signers:stale")
        with RasterSource(f"{server}/a.tif", sign=SIGN) as source:
            source.read(0, 0, 512, 128)
            server.uses = 0
            server.revoke()
            with pytest.raises(RasterError, match=r"a\.tif can't be") as gone:
                source.read(0, 1408, 512, 1536)
        assert len(server.tokens) == 4
    for error in (caught, stale, gone):
        assert "s3cret" not in str(error.value) and "\n" not in str(error.value)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("sign", "says"),
    [
        ("tests.nowhere:sign", r"tests\.nowhere:sign can't be imported \(No module named"),
        ("tests.signers:nothing", r"can't be imported \(module .* has no attribute 'nothing'\)"),
        ("tests.signers:NOT_CALLABLE", "is no function of an href"),
    ],
)
def test_a_signer_that_is_none_is_refused_at_once(sign, says):
    with pytest.raises(SourceError, match=says):
        open_source({"rasters": "a.tif", "sign": sign})


def test_a_signer_that_fails_is_named_without_what_it_knows():
    with pytest.raises(RasterError, match=r"signed by tests\.signers:broken: ValueError") as found:
        signed_href("https://h.invalid/a.tif", "tests.signers:broken")
    assert "s3cret" not in str(found.value)
    with pytest.raises(SourceError, match="silent returned NoneType for an href, expected"):
        signed_href("https://h.invalid/a.tif", "tests.signers:silent")


def test_pictures_are_signed_for(server):
    assert read_preview(f"{server}/a.tif", 64, sign=SIGN).pixels.any()
    with pytest.raises(RasterError, match=r"a\.tif can't be shown"):
        read_preview(f"{server}/a.tif", 64)


def test_local_files_are_nobodys_to_sign(tmp_path):
    assert signed_href("/data/a.tif", "tests.signers:broken") == "/data/a.tif"


def test_the_planetary_computers_package_is_named_where_it_is_missing(monkeypatch):
    from geosweep.catalog import signing

    signing._signer.cache_clear()
    monkeypatch.setitem(sys.modules, "planetary_computer", None)
    with pytest.raises(SourceError, match=r"pip install 'geosweep\[planetary-computer\]'"):
        open_source({"rasters": "a.tif", "sign": "planetary-computer"})


def test_the_planetary_computers_tokens(server, monkeypatch):
    """Its own package against an endpoint of its kind, and a blob storage behind a proxy."""
    sas = pytest.importorskip("planetary_computer.sas")
    settings = pytest.importorskip("planetary_computer.settings").Settings.get
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{server}/sas")
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "")
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(sas, "TOKEN_CACHE", {})
    settings.cache_clear()
    try:
        href = "http://someone.blob.core.windows.net/box/a.tif"
        sign = "planetary-computer"
        assert read_header(href, sign=sign).shape == (64, 64)
        with RasterSource(f"{href}?sig=s3cret-old&se=2020-01-01&sp=r", sign=sign) as source:
            assert source.read(0, 0, 64, 64).data.any()
        assert len(server.tokens) == 1  # for all files of a container, as long as it is good
        # Its package takes the token for good until 2099; the storage knows better.
        server.revoke()
        with RasterSource(href, sign=sign) as source:
            assert source.full_size == (64, 64)
        assert len(server.tokens) == 2
        assert (
            signed_href("http://elsewhere.invalid/a.tif", sign) == "http://elsewhere.invalid/a.tif"
        )
    finally:
        settings.cache_clear()
