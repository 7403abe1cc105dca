from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosweep.catalog.hrefs import gdal_path, is_remote, local_path, public_href, scrub, stable_href

SIGNED = "https://h.com/a/b.tif?X-Amz-Signature=SECRETSECRET&X-Amz-Date=1&item=5#SECRET"
WORD = st.text("abcdefXYZ0123456789-_.~", min_size=12, max_size=30).map("SECRET".__add__)


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        (SIGNED, "https://h.com/a/b.tif?item=5"),
        ("https://user:SECRET@h.com:8080/b.tif", "https://h.com:8080/b.tif"),
        (
            "https://x.blob.core.windows.net/c/b.tif?se=2026&sp=r&sig=SECRET",
            "https://x.blob.core.windows.net/c/b.tif",
        ),
        ("/vsicurl/https://u:SECRET@h/b.tif?sig=SECRET", "/vsicurl/https://h/b.tif"),
        (
            "/vsicurl?header.Authorization=SECRET&url=https%3A%2F%2Fh%2Fb.tif",
            "/vsicurl/https://h/b.tif",
        ),
        ("https://h/b.tif?unheard=SECRET", "https://h/b.tif"),
        ("https://h/b.tif?id=https://x?sig=SECRET", "https://h/b.tif"),
        ("s3://bucket/b.tif", "s3://bucket/b.tif"),
        ("/data/odd?name#1@x.tif", "/data/odd?name#1@x.tif"),
    ],
)
def test_public_href(href, expected):
    assert public_href(href) == expected
    assert public_href(expected) == expected


@given(name=st.text("abcdefghij_-", min_size=1, max_size=12), secret=WORD)
def test_no_unknown_parameter_survives(name, secret):
    assert secret not in public_href(f"https://u:{secret}@h/b.tif?zz{name}={secret}#{secret}")


@given(secret=WORD)
@pytest.mark.parametrize(
    "text",
    [
        "HTTP 403 on https://h/x.tif?sig={}, giving up",
        "'/vsicurl/https://u:{}@h/x.tif' not found",
        "header Authorization: Bearer {}",
        "curl: Authorization: Basic {}",
        "AWS_SECRET_ACCESS_KEY={} is wrong",
        '{{"access_token": "{}"}}',
        "X-Amz-Security-Token={}&x=1",
    ],
)
def test_scrub_leaves_no_secret(text, secret):
    cleaned = scrub(text.format(secret))
    assert secret not in cleaned
    assert scrub(cleaned) == cleaned


def test_scrub_leaves_plain_text_alone():
    text = "/data/a.tif: tile 3,4 can't be decoded (ZIPDecode error), see https://gdal.org/x.html"
    assert scrub(text) == text


def test_stable_href_tells_rasters_apart_but_not_signings():
    assert stable_href(SIGNED) == stable_href(SIGNED.replace("SECRETSECRET", "OTHER"))
    assert stable_href("https://h/raster?n=1") != stable_href("https://h/raster?n=2")


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("https://h/b.tif?x=1", "/vsicurl/https://h/b.tif?x=1"),
        ("s3://bucket/k/b.tif", "/vsis3/bucket/k/b.tif"),
        ("gs://bucket/b.tif", "/vsigs/bucket/b.tif"),
        ("az://box/b.tif", "/vsiaz/box/b.tif"),
        ("file:///data/a%20b.tif", "/data/a b.tif"),
        ("/data/a.tif", "/data/a.tif"),
        ("/vsizip/a.zip/a.tif", "/vsizip/a.zip/a.tif"),
    ],
)
def test_gdal_path(href, expected):
    assert gdal_path(href) == expected


def test_remote_and_local():
    assert is_remote("s3://b/k") and is_remote("/vsis3/b/k") and is_remote("HTTP://h/x")
    assert not is_remote("/data/a.tif") and not is_remote("file:///data/a.tif")
    assert local_path("file:///data/a.tif") == Path("/data/a.tif")
    assert local_path("https://h/a.tif") is None
