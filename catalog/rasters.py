"""Plain rasters, files or folders of them, to scenes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from .errors import RasterError, SourceError
from .header import local_stamp, outline, read_header
from .hrefs import is_remote, local_path, public_href, stable_href
from .scene import Access, Scene
from .signing import plain_href, reading_access

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".img")


def list_rasters(names: Iterable[str]) -> tuple[list[str], int]:
    """Return the distinct rasters that `names` mean, and how many were named more than once.

    Parameters
    ----------
    names
        Files, URLs and folders. Folders are searched all the way down, sorted, for files with one
        of `RASTER_SUFFIXES`; hidden files and folders are skipped.

    Returns
    -------
    list of str
        Absolute paths and URLs, in the order named. A file that does not exist is kept.
    int
        Repetitions dropped; two links to one file count as one raster.

    Raises
    ------
    SourceError
        If a folder holds no raster, or is remote.
    """
    found: dict[str, str] = {}
    total = 0
    for name in names:
        for href in _expand(name):
            total += 1
            path = local_path(href)
            key = stable_href(href) if path is None else os.path.realpath(path)
            found.setdefault(key, href)
    return list(found.values()), total - len(found)


def raster_scene(href: str, scene_id: str, sign: str | None = None) -> Scene:
    """Return the scene of one raster after one look at its header; `error` says if that failed.

    Parameters
    ----------
    href
        From `list_rasters`.
    scene_id
        From `SceneIds`.
    sign
        The job's ``source.sign``.
    """
    href = plain_href(href, sign)
    access = reading_access(href, Access(), sign)
    item_id = raster_stem(href)
    checksum = local_stamp(href)
    scene = Scene(id=scene_id, href=href, item_id=item_id, checksum=checksum, access=access)
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


def _expand(name: str) -> Iterator[str]:
    if is_remote(name):
        if urlsplit(name).path.endswith("/"):
            raise SourceError(
                f"{public_href(name)} is a remote folder: name its rasters one by one"
            )
        yield name
        return
    path = local_path(name)
    if path is None:  # another of GDAL's virtual file systems, such as /vsizip/
        yield name
        return
    path = Path(os.path.normpath(path.expanduser().absolute()))
    if not path.is_dir():
        yield str(path)
        return
    rasters = list(_walk(path))
    if not rasters:
        raise SourceError(
            f"{path} holds no raster ({', '.join(RASTER_SUFFIXES)}): name a folder that does"
        )
    yield from rasters


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in RASTER_SUFFIXES:
                yield str(Path(parent) / name)
