"""Plain rasters, files or folders of them, to scenes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from ._listing import is_folder, is_listable, list_folder
from .errors import RasterError, SourceError
from .header import local_stamp, outline, read_header
from .hrefs import is_remote, local_path, public_href, stable_href
from .scene import Access, Scene
from .signing import plain_href, reading_access

if TYPE_CHECKING:
    from .knownheaders import KnownHeaders

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".img")


class RasterList(NamedTuple):
    """The distinct rasters that somebody named.

    Attributes
    ----------
    hrefs
        Absolute paths and URLs, in the order named. A file that does not exist is kept.
    repeated
        Repetitions dropped; two links to one file count as one raster.
    etags
        What object stores said of the rasters in folders there.
    """

    hrefs: list[str]
    repeated: int
    etags: dict[str, str]


def list_rasters(names: Iterable[str], sign: str | None = None) -> RasterList:
    """Return the distinct rasters that `names` mean.

    Parameters
    ----------
    names
        Files, URLs and folders. Folders, on disks and in object stores, are searched all the way
        down, sorted, for files with one of `RASTER_SUFFIXES`; hidden files and folders are skipped.
    sign
        The job's ``source.sign``.

    Raises
    ------
    SourceError
        If a folder holds no raster, or is one that can't be listed.
    """
    found: dict[str, str] = {}
    etags: dict[str, str] = {}
    total = 0
    for name in names:
        for href, etag in _expand(name, sign):
            total += 1
            path = local_path(href)
            key = stable_href(href) if path is None else os.path.realpath(path)
            found.setdefault(key, href)
            if etag is not None:
                etags[href] = etag
    return RasterList(list(found.values()), total - len(found), etags)


def raster_scene(
    href: str,
    scene_id: str,
    sign: str | None = None,
    etag: str | None = None,
    known: KnownHeaders | None = None,
) -> Scene:
    """Return the scene of one raster after one look at its header; `error` says if that failed.

    Parameters
    ----------
    href
        From `list_rasters`.
    scene_id
        From `SceneIds`.
    sign
        The job's ``source.sign``.
    etag
        Tells one version of a remote raster from the next, where it is known yet.
    known
        Headers that need not be read.
    """
    href = plain_href(href, sign)
    access = reading_access(href, Access(), sign)
    item_id = raster_stem(href)
    checksum = etag or local_stamp(href)
    scene = Scene(id=scene_id, href=href, item_id=item_id, checksum=checksum, access=access)
    header = known.find(href, None, checksum) if known else None
    if header is None:
        try:
            header = read_header(href, access=access, sign=sign)
        except RasterError as error:
            return replace(scene, error=str(error))
    footprint = None
    if header.crs is not None and header.transform is not None:
        footprint = outline(header.shape, header.transform, header.crs)
    return replace(
        scene,
        datetime=header.datetime,
        footprint=footprint,
        crs=header.crs,
        transform=header.transform,
        shape=header.shape,
    )


def raster_stem(href: str) -> str:
    """Return the name of a raster without folder, suffix and query."""
    name = unquote(urlsplit(public_href(href)).path) if "://" in href else href
    return PurePosixPath(name.rstrip("/")).stem


def _expand(name: str, sign: str | None) -> Iterator[tuple[str, str | None]]:
    if is_remote(name):
        yield from _expand_remote(name, sign)
        return
    path = local_path(name)
    if path is None:  # another of GDAL's virtual file systems, such as /vsizip/
        yield name, None
        return
    path = Path(os.path.normpath(path.expanduser().absolute()))
    if not path.is_dir():
        yield str(path), None
        return
    rasters = list(_walk(path))
    if not rasters:
        raise _no_raster(str(path))
    yield from ((raster, None) for raster in rasters)


def _expand_remote(name: str, sign: str | None) -> Iterator[tuple[str, str | None]]:
    if is_listable(name):
        yield from _expand_object(name, sign)
    elif urlsplit(name).path.endswith("/"):
        raise SourceError(
            f"{public_href(name)} is a folder that can't be listed, as those of s3://, gs:// and az:// "
            "can: name its rasters one by one, or give a STAC catalog of them as source.stac"
        )
    else:
        yield name, None


def _expand_object(name: str, sign: str | None) -> Iterator[tuple[str, str | None]]:
    access = reading_access(name, Access(), sign)
    if is_folder(name):
        rasters = list(list_folder(name, RASTER_SUFFIXES, access))
        if not rasters:
            raise _no_raster(public_href(name))
        yield from rasters
        return
    rasters = []
    if not PurePosixPath(name).suffix:  # a folder whose slash was forgotten, or an odd raster
        with suppress(SourceError):  # rasters may be read where folders may not be listed
            rasters = list(list_folder(name, RASTER_SUFFIXES, access))
    yield from rasters or [(name, None)]


def _no_raster(folder: str) -> SourceError:
    return SourceError(
        f"{folder} holds no raster ({', '.join(RASTER_SUFFIXES)}): name a folder that does"
    )


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in RASTER_SUFFIXES:
                yield str(Path(parent) / name)
