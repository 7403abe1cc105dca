"""Cloud-optimized GeoTIFFs: what keeps a raster from being one, and how it becomes one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OutputError, RasterError
from .gdal import gdal_env
from .header import open_raster
from .hrefs import gdal_path, local_path, public_href, scrub
from .localstorage import TEMPORARY

if TYPE_CHECKING:
    import rasterio

SMALL = 512  # a raster of this side is read in one go: it needs neither tiles nor overviews
_WIDE = 1024  # strips up to this width waste less than they save in requests
_WINDOW = 400  # side of the windows that the cost of strips is told by
_OPTIONS = {
    "COMPRESS": "DEFLATE",  # lossless, and every reader knows it
    "PREDICTOR": "YES",
    "BLOCKSIZE": "512",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "ALL_CPUS",
}


def cog_problems(raster: rasterio.DatasetReader) -> list[str]:
    """Return what keeps an open raster from being a cloud-optimized GeoTIFF, with what it costs.

    The criteria are those of GDAL's ``validate_cloud_optimized_geotiff``, read from the header:
    tiles and overviews if it has more than 512 pixels on a side, and the header before the pixels.

    Returns
    -------
    list of str
        One clause for each fault; empty for a good file.
    """
    if raster.driver not in ("GTiff", "COG"):
        return [f"it is {raster.driver}, not GeoTIFF"]
    problems = []
    width, height = raster.width, raster.height
    block_height, block_width = raster.block_shapes[0]
    if max(width, height) > SMALL:
        if block_width >= width > _WIDE:
            times = width * (_WINDOW + block_height - 1) / _WINDOW**2
            problems.append(
                f"it has no tiles: a window of {_WINDOW} pixels decodes {times:.0f} times as many"
            )
        if not raster.overviews(1):
            problems.append("it has no overviews: a preview or a coarser look reads all of it")
    if not _header_first(raster):
        problems.append("its header is scattered among the pixels: opening it takes more requests")
    return problems


def convert_to_cog(href: str, target: Path) -> bool:
    """Write a raster as a COG, losslessly, unless that was done before.

    The file appears under its name when it is complete, and gets the time of change of a local
    source. By that, its grid and a look at its header a later call tells that nothing is to do.

    Parameters
    ----------
    href
        Any raster that GDAL reads.
    target
        The file to write; its folder is made.

    Returns
    -------
    bool
        False if `target` was there already, complete, and is left as it is.

    Raises
    ------
    RasterError
        If `href` can't be read.
    OutputError
        If `target` can't be written.
    """
    stamp = _time_of_change(href)
    if _is_done(href, target, stamp):
        return False
    # Beside the target, so that the last step is a rename; of a name that writers of outputs use,
    # so that what a killed process leaves is swept away like theirs.
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}.tif")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(href, temporary, target)
        if stamp is not None:
            os.utime(temporary, ns=(stamp, stamp))
        temporary.replace(target)
    except OSError as error:
        raise OutputError(
            f"{target} can't be written ({error.strerror}): name a folder you may write to"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(f"{temporary.name}.aux.xml").unlink(missing_ok=True)
    return True


def _copy(href: str, temporary: Path, target: Path) -> None:
    import rasterio
    import rasterio.shutil
    from rasterio._err import CPLE_BaseError  # `copy` lets GDAL's own errors through
    from rasterio.errors import RasterioError

    with open_raster(href):
        pass  # so that what is wrong with the source is said of the source
    try:
        with rasterio.Env.from_defaults(**gdal_env(href)):
            rasterio.shutil.copy(gdal_path(href), str(temporary), driver="COG", **_OPTIONS)
    except (RasterioError, CPLE_BaseError) as error:
        reason = scrub(str(error)).strip().rstrip(".") or type(error).__name__
        raise RasterError(f"{public_href(href)} can't be converted to {target}: {reason}") from None


def _is_done(href: str, target: Path, stamp: int | None) -> bool:
    if not target.is_file() or (stamp is not None and target.stat().st_mtime_ns != stamp):
        return False
    try:
        with open_raster(str(target)) as there:
            if cog_problems(there):
                return False
            made = (there.shape, there.dtypes)
    except RasterError:
        return False
    with open_raster(href) as source:
        return made == (source.shape, source.dtypes)


def _time_of_change(href: str) -> int | None:
    path = local_path(href)
    try:
        return None if path is None else path.stat().st_mtime_ns
    except OSError:
        return None


def _header_first(raster: rasterio.DatasetReader) -> bool:
    """Whether all directories of the file stand before the first pixels."""
    levels = [None, *range(len(raster.overviews(1)))]
    headers = [_offset(raster, "IFD_OFFSET", level) for level in levels]
    pixels = [_offset(raster, "BLOCK_OFFSET_0_0", level) for level in levels]
    first = min((offset for offset in pixels if offset), default=None)  # sparse blocks have none
    return first is None or all(offset is not None and offset < first for offset in headers)


def _offset(raster: rasterio.DatasetReader, name: str, level: int | None) -> int | None:
    value = raster.get_tag_item(name, dm="TIFF", bidx=1, ovr=level)
    return None if value is None else int(value)
