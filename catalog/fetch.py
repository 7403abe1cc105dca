"""Reading small files (JSON, parquet indices) from disks, web servers and object stores."""

from __future__ import annotations

import base64
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from .errors import SourceError
from .hrefs import local_path, public_href, scrub

if TYPE_CHECKING:
    from obstore import GetResult

T = TypeVar("T")

_TIMEOUT_S = 60
_HEAD_TIMEOUT_S = 10
_TRIES = 3
_PIECE = 1 << 20
_NOBODY = (socket.gaierror, ConnectionRefusedError)


def read_bytes(href: str) -> bytes:
    """Return the content of a local file, or of an http(s), s3, gs or az URL.

    Raises
    ------
    SourceError
        If it is missing or can't be read; servers that answer 429 or 5xx are asked three times.
    """
    path = local_path(href)
    try:
        if path is not None:
            return path.read_bytes()
        if urlsplit(href).scheme in ("http", "https"):
            return _read_http(href)
        return _read_object(href)
    except FileNotFoundError:
        raise SourceError(f"{public_href(href)} does not exist") from None
    except IsADirectoryError:
        raise SourceError(f"{public_href(href)} is a folder, not a file") from None
    except Exception as error:
        # urllib wraps what the system said in brackets of its own.
        said = str(error.reason if type(error) is urllib.error.URLError else error)
        reason = scrub(said).splitlines()[0] if said else type(error).__name__
        raise SourceError(f"{public_href(href)} can't be read: {reason}") from None


def iter_bytes(href: str) -> Iterator[bytes]:
    """Yield the content of a file of any size piece by piece; hrefs as for `read_bytes`.

    Raises
    ------
    SourceError
        If it is missing or can't be read; a stream that breaks is not tried again.
    """
    path = local_path(href)
    try:
        if path is not None:
            with path.open("rb") as file:
                yield from iter(lambda: file.read(_PIECE), b"")
        elif urlsplit(href).scheme in ("http", "https"):
            yield from _stream_http(href)
        else:
            for piece in _get_object(href).stream(min_chunk_size=_PIECE):
                yield bytes(piece)
    except Exception as error:
        reason = scrub(str(error)).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"{public_href(href)} can't be read: {reason}") from None


def temporary_copy(href: str) -> Any:
    """Return an open temporary file with the content of a remote one, which memory might not hold.

    Raises
    ------
    SourceError
        As `read_bytes` does.
    """
    copy = tempfile.NamedTemporaryFile(prefix="geosweep-")  # noqa: SIM115
    try:
        for piece in iter_bytes(href):
            copy.write(piece)
    except SourceError:
        copy.seek(0)
        copy.truncate()
        copy.write(read_bytes(href))  # which tries again, and knows best what is wrong
    copy.flush()
    return copy


def http_headers(href: str) -> Mapping[str, str]:
    """Return what a web server says of a file, without the file; names in any case.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        What urllib raises; servers that answer 429 or 5xx are asked three times, those that aren't
        there once.
    """
    request = _request(href)
    request.method = "HEAD"
    return _tried(request, lambda response: response.headers, _HEAD_TIMEOUT_S, patient=False)


def _stream_http(href: str) -> Iterator[bytes]:
    with urllib.request.urlopen(_request(href), timeout=_TIMEOUT_S) as response:
        promised, got = response.headers.get("Content-Length"), 0
        while piece := response.read(_PIECE):
            got += len(piece)
            yield piece
    # urllib takes the end of the connection for the end of the file.
    if promised is not None and got != int(promised):
        raise ConnectionError(f"the connection broke off after {got} of {promised} bytes")


def _read_http(href: str) -> bytes:
    return _tried(_request(href), lambda response: response.read(), _TIMEOUT_S)


def _tried(
    request: urllib.request.Request,
    take: Callable[[Any], T],
    timeout_s: float,
    *,
    patient: bool = True,
) -> T:
    for attempt in range(1, _TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return take(response)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError from None
            if attempt == _TRIES or not (error.code == 429 or error.code >= 500):
                raise
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            if attempt == _TRIES or (not patient and isinstance(reason, _NOBODY)):
                raise
        time.sleep(0.5 * 2 ** (attempt - 1))
    raise AssertionError("unreachable: the last try returns or raises")


def _request(href: str) -> urllib.request.Request:
    parts = urlsplit(href)
    userinfo, _, netloc = parts.netloc.rpartition("@")
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    request = urllib.request.Request(urlunsplit((parts.scheme, netloc, path, parts.query, "")))
    if userinfo:
        token = base64.b64encode(unquote(userinfo).encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    return request


def _read_object(href: str) -> bytes:
    return bytes(_get_object(href).bytes())


def _get_object(href: str) -> GetResult:
    import obstore

    from .objectstore import connect

    folder, _, name = href.rpartition("/")
    return obstore.get(connect(folder, reading=True), name)
