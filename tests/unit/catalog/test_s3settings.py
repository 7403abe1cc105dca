from __future__ import annotations

import os

import pytest

from geosweep.catalog import JobError, SourceError, gdal_env, open_source, open_storage
from geosweep.catalog._storefaults import fault

S3 = "s3://bucket/a.tif"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


def for_gdal() -> dict[str, str]:
    return {name: value for name, value in gdal_env(S3).items() if name.startswith("AWS_")}


def test_aws_itself_needs_nothing():
    assert for_gdal() == {}


@pytest.mark.parametrize(
    ("url", "host", "https"),
    [
        ("http://localhost:9000", "localhost:9000", "NO"),
        ("https://s3.example.org/", "s3.example.org", "YES"),
        ("https://example.org/s3", "example.org/s3", "YES"),
    ],
)
def test_gdal_gets_the_parts_of_the_endpoint(monkeypatch, url, host, https):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    expected = {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": https, "AWS_VIRTUAL_HOSTING": "FALSE"}
    assert for_gdal() == expected
    assert "AWS_S3_ENDPOINT" not in gdal_env("local.tif")


def test_the_services_own_endpoint_goes_first(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all.example.org")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example.org")
    assert for_gdal()["AWS_S3_ENDPOINT"] == "s3.example.org"


def test_what_the_user_says_to_gdal_stands(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    monkeypatch.setenv("AWS_S3_ENDPOINT", "s3.amazonaws.com")
    assert for_gdal() == {}


def test_an_endpoint_that_is_no_url_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "me:hushhush@localhost:9000")
    with pytest.raises(JobError, match=r"AWS_ENDPOINT_URL is 'localhost:9000'.* must be a URL"):
        open_storage("s3://bucket/out")


def test_folders_on_web_servers_are_refused():
    with pytest.raises(
        SourceError, match=r"https://example.org/a/ is a folder that can't be listed"
    ):
        open_source("https://me:hushhush@example.org/a/")


ANSWER = (
    "Generic S3 error: Error performing GET http://localhost:9000/bucket?list-type=2 in 1ms - Server "
    "returned non-2xx status code: {status}: <?xml?>\n<Error><Code>{code}</Code></Error>\nDebug: …"
)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (ANSWER.format(status=404, code="NoSuchBucket"), "there is no such bucket"),
        (ANSWER.format(status=403, code="SignatureDoesNotMatch"), "access denied"),
        (
            ANSWER.format(status=503, code="SlowDown"),
            "http://localhost:9000 answered 503 (SlowDown)",
        ),
        ("Error performing PUT http://169.254.169.254/latest/api/token in 1s", "no credentials"),
        (
            "Error performing GET http://me:hushhush@host:9/b in 1s - HTTP error: error sending request",
            "http://host:9 does not answer",
        ),
        ("boom https://host/x?X-Amz-Signature=hushhush\nmore", "boom https://host/x"),
    ],
)
def test_faults_are_a_few_words(text, meaning):
    said = fault(RuntimeError(text))
    assert meaning in said
    assert "\n" not in said and "hush" not in said
