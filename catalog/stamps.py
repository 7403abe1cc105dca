"""What tells one version of a remote raster from another where its source doesn't say: the ETag."""

from __future__ import annotations

import logging
import threading
import urllib.error
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from ._inorder import in_order
from ._storefaults import fault
from .fetch import http_headers
from .hrefs import is_remote, public_href, scrub
from .scene import Access, Scene, SideAsset
from .signing import is_signed, signed_href

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from .knownheaders import KnownHeaders

Part = TypeVar("Part", Scene, SideAsset)

_ENOUGH = 3  # failures in a row after which a server is not asked again
_REFUSED = (401, 403)
_VSI = {"/vsicurl/": "", "/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}

log = logging.getLogger("geosweep")


def remote_stamp(href: str, access: Access | None = None, sign: str | None = None) -> str | None:
    """Ask a server for the ETag of a file, or else for time of modification and length.

    Parameters
    ----------
    href
        Unsigned; http(s), s3, gs or az.
    access, sign
        As for `read_header`.

    Returns
    -------
    str
        None where it says neither.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Exception
        Whatever else urllib, obstore or a signer raise.
    """
    try:
        return _stamp(signed_href(href, sign), access)
    except urllib.error.HTTPError as error:
        if error.code not in _REFUSED or not is_signed(href, sign):
            raise
    return _stamp(signed_href(href, sign, anew=True), access)


class Stamps:
    """Asks servers, in any number of threads, and gives up on those that don't answer.

    Parameters
    ----------
    sign
        The job's ``source.sign``.

    Attributes
    ----------
    known
        What an earlier plan knows, if there is one. It holds for servers that don't answer now: an hour
        in which one is down doesn't change its rasters.
    """

    known: KnownHeaders | None = None

    def __init__(self, sign: str | None) -> None:
        self._sign = sign
        self._failed: Counter[str] = Counter()
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def complete(self, scenes: Iterable[Scene]) -> Iterator[Scene]:
        """Yield scenes in their order, with a checksum for all remote rasters that are not dated.

        That is, for those without `updated` and checksum. None remains where the server tells none.

        Parameters
        ----------
        scenes
            Taken some dozens ahead, if servers have to be asked.
        """
        return in_order(self._completed, scenes, slow=_lacks_version)

    def of(self, href: str, access: Access) -> str | None:
        """Return what `remote_stamp` does; what is `known`, or None, where the server doesn't tell.

        The log says so once. None also for a file that is missing: whoever reads it will say so.
        """
        server = _server(href)
        if self._failed[server] >= _ENOUGH:
            return self._last(href)
        try:
            stamp = remote_stamp(href, access, self._sign)
        except FileNotFoundError:
            return None
        except Exception as error:  # a server's or a signer's; rasters can be read all the same
            self._failed[server] += 1
            self._tell(server, _reason(error))
            return self._last(href)
        self._failed[server] = 0
        if stamp is None:
            self._tell(server, "it gives neither ETag nor time of modification")
        return stamp

    def _last(self, href: str) -> str | None:
        return None if self.known is None else self.known.stamp(href)

    def _completed(self, scene: Scene) -> Scene:
        if not _lacks_version(scene):
            return scene
        known: dict[str, str | None] = {}  # the first of several bands stands in a scene twice
        others = {key: self._asked(other, known) for key, other in scene.assets.items()}
        bands = {name: self._asked(band, known) for name, band in scene.bands.items()}
        return replace(self._asked(scene, known), assets=others, bands=bands)

    def _asked(self, part: Part, known: dict[str, str | None]) -> Part:
        if not _unversioned(part):
            return part
        if part.href not in known:
            known[part.href] = self.of(part.href, part.access)
        return replace(part, checksum=known[part.href])

    def _tell(self, server: str, reason: str) -> None:
        with self._lock:
            if server in self._told:
                return
            self._told.add(server)
        log.warning(
            "%s does not say which version of a raster it has (%s): where the source gives no "
            "'updated' and no checksum either, updates won't see that a raster was replaced",
            server,
            reason,
        )


def _lacks_version(scene: Scene) -> bool:
    if scene.error is not None:
        return False
    if not scene.assets and not scene.bands:  # as of nearly all
        return _unversioned(scene)
    return (
        _unversioned(scene)
        or any(map(_unversioned, scene.assets.values()))
        or any(map(_unversioned, scene.bands.values()))
    )


def _unversioned(part: Scene | SideAsset) -> bool:
    return part.updated is None and part.checksum is None and is_remote(part.href)


def _stamp(href: str, access: Access | None) -> str | None:
    url = _url(href)
    if urlsplit(url).scheme in ("http", "https"):
        headers = http_headers(url)
        if headers.get("ETag"):
            return headers["ETag"]
        modified, length = headers.get("Last-Modified"), headers.get("Content-Length")
        return f"{modified} {length}" if modified and length else None
    import obstore

    bucket, _, key = url.partition("://")[2].partition("/")
    meta = obstore.head(_store(f"{urlsplit(url).scheme}://{bucket}", access or Access()), key)
    return meta["e_tag"] or f"{meta['last_modified'].isoformat()} {meta['size']}"


@lru_cache(maxsize=64)
def _store(bucket: str, access: Access) -> ObjectStore:
    from .objectstore import connect

    return connect(bucket, reading=True, access=access)


def _url(href: str) -> str:
    """The URL that a path of GDAL's stands for."""
    for prefix, scheme in _VSI.items():
        if href.startswith(prefix):
            return scheme + href.removeprefix(prefix)
    return href


def _server(href: str) -> str:
    parts = urlsplit(_url(public_href(href)))
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else parts.path.split("/")[1]


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers HEAD with {error.code}"
    if isinstance(error, urllib.error.URLError):
        return scrub(str(error.reason))
    return fault(error)
