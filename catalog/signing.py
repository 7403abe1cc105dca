"""Signing: hrefs get their signature just before the read, in the process that reads.

What travels (plans, tasks, records, messages) is unsigned, since signatures are credentials and
outlast neither a long run nor, at times, a large scene.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any
from urllib.parse import urlparse

from .errors import RasterError, SourceError
from .hrefs import is_remote, is_s3, public_href, scrub, unsigned_href
from .scene import Access

PLANETARY_COMPUTER = "planetary-computer"
REQUESTER_PAYS = "s3-requester-pays"

_IMPORT_PATH = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_TOKEN_TRIES = 3  # the package's own ten would wait for seven minutes at every raster
_one_at_a_time = threading.Lock()


def check_sign(sign: str) -> None:
    """Raise ValueError, in one sentence, unless `sign` is what ``source.sign`` may be."""
    if sign not in (PLANETARY_COMPUTER, REQUESTER_PAYS) and not _IMPORT_PATH.fullmatch(sign):
        raise ValueError(
            f"write '{PLANETARY_COMPUTER}', '{REQUESTER_PAYS}', or a function of yours as "
            "'package.module:function'"
        )


def check_signer(sign: str | None) -> None:
    """Raise SourceError unless hrefs can be signed as ``source.sign`` says, as far as is known here."""
    if sign is not None and sign != REQUESTER_PAYS:
        _signer(sign)


def is_signed(href: str, sign: str | None) -> bool:
    """Whether `href` gets a signature before it is read, which may then expire."""
    return sign is not None and sign != REQUESTER_PAYS and is_remote(href)


def plain_href(href: str, sign: str | None) -> str:
    """Return `href` without the signature that it came with, if it is signed anew before the read."""
    return unsigned_href(href) if is_signed(href, sign) else href


def signed_href(href: str, sign: str | None, *, anew: bool = False) -> str:
    """Return `href` with a signature: a credential, to be used at once and shown to nobody.

    Parameters
    ----------
    href
        Local ones, and all if there is nothing to sign with, come back as they are. A signature that
        it has already is replaced.
    sign
        The job's ``source.sign``.
    anew
        The last signature didn't work: none that is remembered will do.

    Raises
    ------
    SourceError
        If the signer can't be imported, or returns no text.
    RasterError
        If it fails.
    """
    if sign is None or not is_signed(href, sign):
        return href
    signer = _signer(sign)
    try:
        signed = signer(unsigned_href(href), anew)
    except Exception as error:  # whatever a signer of the user's own, or its network, may raise
        said = scrub(str(error)).splitlines()
        reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
        raise RasterError(f"{public_href(href)} can't be signed by {sign}: {reason}") from None
    if not isinstance(signed, str) or not signed:
        raise SourceError(
            f"source.sign: {sign} returned {type(signed).__name__} for an href, expected the signed "
            "href as text"
        )
    return signed


def reading_access(href: str, access: Access, sign: str | None) -> Access:
    """Return `access`, agreeing to pay for what is in S3 if ``source.sign`` does."""
    if sign == REQUESTER_PAYS and is_s3(href):
        return replace(access, requester_pays=True)
    return access


@cache
def _signer(sign: str) -> Callable[[str, bool], Any]:
    if sign == PLANETARY_COMPUTER:
        return _planetary_computer()
    module, _, attribute = sign.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"source.sign: {sign} can't be imported ({error})") from None
    if not callable(function):
        raise SourceError(f"source.sign: {sign} is no function of an href")
    return lambda href, anew: function(href)


def _planetary_computer() -> Callable[[str, bool], str]:
    try:
        from planetary_computer import sas
        from planetary_computer.utils import parse_blob_url
    except ImportError:
        raise SourceError(
            "source.sign: planetary-computer needs a package that is not installed: "
            "pip install 'geosweep[planetary-computer]'"
        ) from None

    def sign(href: str, anew: bool) -> str:
        # Many threads that find no token would all ask for one.
        with _one_at_a_time:
            if anew:
                sas.TOKEN_CACHE.clear()
            url = urlparse(href)
            if url.netloc.endswith(sas.BLOB_STORAGE_DOMAIN):
                sas.get_token(*parse_blob_url(url), retry_total=_TOKEN_TRIES)
            return sas.sign_url(href)

    return sign
