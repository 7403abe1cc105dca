"""One set of environment variables for S3, whoever asks: obstore and GDAL know different ones.

obstore reads what AWS' own tools read. GDAL needs the parts of the endpoint's URL under names of its
own, and would otherwise ask AWS for the bucket of a private server.
"""

from __future__ import annotations

import os

from .errors import JobError

# In the order in which obstore looks at them: the service's own before the general one.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_GDAL = "AWS_S3_ENDPOINT"


def s3_endpoint() -> str | None:
    """Return the URL of the S3 server that the environment names; None for AWS itself.

    Raises
    ------
    JobError
        If it is no URL.
    """
    name, value = _endpoint()
    if value and not value.startswith(("http://", "https://")):
        shown = value.rpartition("@")[2]
        raise JobError(f"{name} is '{shown}', but must be a URL such as http://localhost:9000")
    return value or None


def gdal_s3_options() -> dict[str, str]:
    """Return the options that send GDAL's ``/vsis3/`` to the server that obstore talks to.

    Nothing where the environment names no server, or has GDAL's own ``AWS_S3_ENDPOINT``: imagery may
    lie elsewhere than the output.
    """
    value = _endpoint()[1]
    if not value or os.environ.get(_GDAL):
        return {}
    scheme, found, host = value.partition("://")
    # The bucket goes into the path: a private server seldom has a host name for each.
    return {
        _GDAL: (host if found else value).rstrip("/"),
        "AWS_HTTPS": "NO" if found and scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }


def imagery_endpoint() -> str | None:
    """Return the URL of the S3 server that GDAL alone is told of; None if it is told of none."""
    host = os.environ.get(_GDAL)
    if not host:
        return None
    plain = os.environ.get("AWS_HTTPS", "YES").upper() in ("NO", "FALSE", "OFF", "0")
    return f"{'http' if plain else 'https'}://{host.rstrip('/')}"


def reads_unsigned() -> bool:
    """Whether the environment tells GDAL to read S3 without credentials."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("yes", "true", "on", "1")


def _endpoint() -> tuple[str, str]:
    return next(((name, os.environ[name]) for name in _ENDPOINTS if os.environ.get(name)), ("", ""))
