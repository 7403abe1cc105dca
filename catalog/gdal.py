"""GDAL's settings for reading rasters, kept in one place."""

from __future__ import annotations

import logging
from typing import Any

from ._s3settings import gdal_s3_options
from .hrefs import is_remote, is_s3, scrub
from .scene import Access

# Measured in shared/FACTS: without these GDAL lists the folder on open (ten requests instead of
# two), never retries, and waits for ever on a stalled server.
_COMMON: dict[str, Any] = {
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_CACHEMAX": 64 << 20,  # rasterio takes a number for bytes, whatever GDAL does
    "CPL_VSIL_CURL_CACHE_SIZE": "134217728",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_LOW_SPEED_TIME": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "10000",
}
_REMOTE: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # What is remembered of a file ends with its last handle. Otherwise a process that outlives a
    # file's replacement in place would go on with what it knows of the old one: pixels of both, in the
    # worst case. It costs a HEAD at each opening.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl:/vsis3:/vsigs:/vsiaz:/vsiadls:/vsioss",
}

# The loggers on which rasterio repeats what GDAL says, file names and all.
_LOGGERS = ("rasterio", "rasterio._base", "rasterio._env", "rasterio._err", "rasterio._io")


class _ScrubFilter(logging.Filter):
    """Takes signatures and passwords out of log records, whoever handles them."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage()), ()
        return True


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_ScrubFilter())


def gdal_env(href: str | None = None, access: Access | None = None) -> dict[str, Any]:
    """Return the options for `rasterio.Env` under which `href` is opened and read.

    Parameters
    ----------
    href
        The raster. A local one keeps its sidecars (world file, ``.aux.xml``, ``.ovr``): looking for
        them is cheap on a disk and they may hold the georeferencing. None means remote.
    access
        How its bucket wants to be asked; what that doesn't say is the environment's.
    """
    if href is not None and not is_remote(href):
        return dict(_COMMON)
    options = {**_REMOTE, **_COMMON, **gdal_s3_options()}
    if access is not None and href is not None and is_s3(href):
        if access.region is not None:
            options["AWS_REGION"] = access.region
        if access.requester_pays:
            options["AWS_REQUEST_PAYER"] = "requester"
    return options
