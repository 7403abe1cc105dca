"""Hrefs as three audiences need them: GDAL, the public, and identity checks.

A signed URL, or one with a password in it, is a credential. What geosweep writes down or prints
goes through `public_href` or `scrub`; what it compares goes through `stable_href`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_Keep = Callable[[str, str], bool]

# Query parameters that say which resource is meant. Everything else is dropped from what is public:
# providers name their signatures as they like, so a list of secret names would never be complete.
_HARMLESS = frozenset(
    [
        "asset",
        "band",
        "bands",
        "collection",
        "date",
        "f",
        "format",
        "id",
        "item",
        "layer",
        "layers",
        "v",
        "version",
        "versionid",
        "year",
    ]
)
_HARMLESS_VALUE = re.compile(r"[\w.,:+/ -]{0,64}", re.ASCII)

# Parameters that change from one signing to the next and never say which resource is meant.
_SIGNATURE = re.compile(
    r"""(x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|expires|policy
    |key-pair-id|sig|se|sp|sv|sr|st|spr|ske|skt|sks|skv|skoid|sktid|sip|rscd|rsct|hash|hmac
    |.*token.*|.*secret.*|.*password.*|.*api[_-]?key.*|.*access[_-]?key.*|auth.*|jwt|credentials?
    |subscription-key|session)""",
    re.IGNORECASE | re.VERBOSE,
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>`|]+", re.IGNORECASE)
_VSI_OPTIONS = re.compile(r"/vsicurl(_streaming)?\?[^\s'\"<>`|]+")
_NAMED_SECRET = re.compile(
    r"""(?P<name>\b[\w.-]*(?:x-amz-(?:signature|credential|security-token)|signature|secret[\w-]*
    |passw(?:or)?d|access[_-]?key(?:[_-]?id)?|api[_-]?key|token|\bsig)["']?\s*[=:]\s*["']?)
    (?!\*\*\*)[^\s&"',;)}]+""",
    re.IGNORECASE | re.VERBOSE,
)
_AUTHORIZATION = re.compile(
    r"(authorization[\"']?\s*[=:]\s*[\"']?)(?:(?:basic|bearer|aws4-hmac-sha256)\s+)?[^\r\n\"']+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}", re.IGNORECASE)
_VSI = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "ftp": "/vsicurl/ftp://",
    "s3": "/vsis3/",
    "s3a": "/vsis3/",
    "gs": "/vsigs/",
    "gcs": "/vsigs/",
    "az": "/vsiaz/",
    "azure": "/vsiaz/",
    "oss": "/vsioss/",
    "abfs": "/vsiadls/",
    "abfss": "/vsiadls/",
}


def is_s3(href: str) -> bool:
    """Whether `href` is in a bucket of S3's kind."""
    return gdal_path(href).startswith("/vsis3")


def is_remote(href: str) -> bool:
    """Whether `href` is read over a network."""
    scheme, found, _ = href.partition("://")
    if found and "/" not in scheme:
        return scheme.lower() != "file"
    return href.startswith(
        (
            "/vsicurl",
            "/vsis3",
            "/vsigs",
            "/vsiaz",
            "/vsiadls",
            "/vsioss",
            "/vsiswift",
            "/vsiwebhdfs",
        )
    )


def gdal_path(href: str) -> str:
    """Return `href` as GDAL opens it: ``/vsicurl/…``, ``/vsis3/…``, or a plain path.

    Paths that already start with ``/vsi``, and schemes that GDAL has no prefix for, are left alone.
    """
    scheme, found, rest = href.partition("://")
    if not found or "/" in scheme:
        return href
    if scheme.lower() == "file":
        return unquote(urlsplit(href).path)
    prefix = _VSI.get(scheme.lower())
    return f"{prefix}{rest}" if prefix else href


def local_path(href: str) -> Path | None:
    """Return the path of a local file, or None where `href` is not one."""
    path = gdal_path(href)
    return None if "://" in path or path.startswith("/vsi") else Path(path)


def public_href(href: str) -> str:
    """Return `href` without anything that grants access: fit for outputs, logs and messages.

    Drops ``user:password@``, the fragment, and every query parameter that is not on a short list of
    harmless names. Local paths come back unchanged.
    """
    return _rewrite(href, _harmless, keep_fragment=False)


def stable_href(href: str) -> str:
    """Return `href` without the parameters that signing adds: equal for two signings of one URL.

    Fit for comparing and hashing only: unknown parameters stay, since they may tell two rasters of
    one server apart.
    """
    return _rewrite(href, lambda name, _: not _SIGNATURE.fullmatch(name), keep_fragment=True)


def unsigned_href(href: str) -> str:
    """Return `href` as it was before it was signed, so that it can be signed anew.

    Signers leave what is signed already alone, even where the signature has expired. All but the
    signature stays as it is, to the byte.
    """
    path, mark, query = href.partition("?")
    query, hash_, fragment = query.partition("#")
    kept = [
        part
        for part in query.split("&")
        if not _SIGNATURE.fullmatch(unquote(part.partition("=")[0]))
    ]
    if not mark or len(kept) == query.count("&") + 1:
        return href
    return _join(path, "&".join(kept)) + hash_ + fragment


def scrub(text: str) -> str:
    """Remove secrets from free text, such as GDAL's or a client's error messages."""
    text = _VSI_OPTIONS.sub(lambda match: public_href(match[0]), text)
    text = _URL.sub(lambda match: public_href(match[0]), text)
    text = _AUTHORIZATION.sub(r"\1***", text)
    text = _BEARER.sub(r"\1 ***", text)
    return _NAMED_SECRET.sub(r"\g<name>***", text)


def _harmless(name: str, value: str) -> bool:
    return name.lower() in _HARMLESS and _HARMLESS_VALUE.fullmatch(value) is not None


def _rewrite(href: str, keep: _Keep, keep_fragment: bool) -> str:
    if href.startswith(("/vsicurl?", "/vsicurl_streaming?")):
        # GDAL's option form may carry headers and cookies; only the URL in it is worth showing.
        options = dict(parse_qsl(href.partition("?")[2], keep_blank_values=True))
        return "/vsicurl/" + _rewrite(options.get("url", ""), keep, keep_fragment)
    start = _URL.search(href)
    if start is None:
        if not href.startswith("/vsi") or "?" not in href:
            return href
        path, _, query = href.partition("?")
        return _join(path, _kept(query, keep))
    head, url = href[: start.start()], href[start.start() :]
    if head and not head.startswith("/vsi"):
        return href  # a local path that happens to contain "://"
    try:
        parts = urlsplit(url)
    except ValueError:
        return head + re.split(r"[?#]", url, maxsplit=1)[0].rsplit("@", 1)[-1]
    if parts.scheme.lower() == "file":
        return href
    netloc = parts.netloc.rpartition("@")[2]
    fragment = parts.fragment if keep_fragment else ""
    tail = f"#{fragment}" if fragment else ""
    return head + _join(f"{parts.scheme}://{netloc}{parts.path}", _kept(parts.query, keep)) + tail


def _kept(query: str, keep: _Keep) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode([(name, value) for name, value in pairs if keep(name, value)], safe="/,:")


def _join(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path
