"""Images by name: where they are, and what their headers say."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...catalog.errors import RasterError

if TYPE_CHECKING:
    import rasterio
    from affine import Affine

# Over a network: no listing of the folder, retries, and no waiting for ever on a stalled server.
_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image's header says.

    Parameters
    ----------
    width, height
        Size in pixels.
    transform
        Pixel to map coordinates; None where the image has no georeferencing.
    crs
        ``EPSG:…`` or WKT; None where the image names none.
    """

    width: int
    height: int
    transform: Affine | None
    crs: str | None


def is_remote(path: str) -> bool:
    """Whether `path` is a URL or one of GDAL's virtual paths rather than a file."""
    return "://" in path or path.startswith("/vsi")


def image_location(root_dir: str | Path, image_path: str) -> str:
    """Where an ``image_path`` of an annotation frame is: a path or URL that rasterio opens."""
    return image_path if is_remote(image_path) else os.path.join(root_dir, image_path)  # noqa: PTH118


def shown(path: str) -> str:
    """`path` for messages: a URL without its query, which may grant access, and without a password."""
    if not is_remote(path):
        return path
    head, found, rest = path.partition("?")[0].partition("://")
    return f"{head}://{rest.rpartition('@')[2]}" if found else head


def gdal_options(path: str) -> dict[str, Any]:
    """Return GDAL's settings for opening and reading an image: those of a network, if it is remote."""
    return dict(_REMOTE) if is_remote(path) else {}


def open_image(path: str, **options: Any) -> rasterio.DatasetReader:
    """Open an image with rasterio, which gets the options; the caller closes it.

    Raises
    ------
    RasterError
        If it is missing or not an image.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not is_remote(path) and not Path(path).is_file():
        raise RasterError(f"The image {path} does not exist.")
    try:
        with rasterio.Env(**gdal_options(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, **options)
    except RasterioError:
        # GDAL's own words may repeat a signed URL.
        raise RasterError(f"{shown(path)} can't be opened as an image.") from None


def image_header(path: str) -> ImageHeader:
    """Read an image's header; remembered for as long as a local file is unchanged.

    Raises
    ------
    RasterError
        If it is missing or not an image.
    """
    try:
        stat = Path(path).stat()
        stamp = (stat.st_size, stat.st_mtime_ns)
    except OSError:
        stamp = None
    return _header(path, stamp)


@lru_cache(maxsize=65536)
def _header(path: str, stamp: tuple[int, int] | None) -> ImageHeader:
    with open_image(path) as image:
        located = image.crs is not None or not image.transform.is_identity
        return ImageHeader(
            image.width,
            image.height,
            image.transform if located else None,
            crs_text(image.crs),
        )


def crs_text(crs: rasterio.CRS | None) -> str | None:
    """``EPSG:…`` where the match is certain, else WKT."""
    if not crs:
        return None
    code = crs.to_authority(confidence_threshold=100)
    return ":".join(code) if code else crs.to_wkt()


def reason(error: BaseException) -> str:
    """What GDAL says, from the deepest cause, without a final stop and without a URL's query."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = (str(error) or type(error).__name__).strip().rstrip(".")
    return " ".join(shown(word) for word in text.split(" "))


class Banded(Protocol):
    """What has bands: an open raster, or several that are stacked."""

    @property
    def name(self) -> str:
        """Path or URL."""
        ...

    @property
    def count(self) -> int:
        """How many bands."""
        ...

    @property
    def descriptions(self) -> tuple[str | None, ...]:
        """Their names."""
        ...


def band_number(
    dataset: Banded,
    band: int | str,
    *,
    name: str | None = None,
    asker: str = "bands",
) -> int:
    """The 1-based number of a band given by number or name.

    Parameters
    ----------
    dataset
        The open raster, or what stands for it.
    band
        A 1-based number, or a band's description.
    name, asker
        What the raster is called in a message, and whose wish the band is.

    Raises
    ------
    RasterError
        If there is no such band.
    """
    name = name or shown(dataset.name)
    if isinstance(band, str):
        if band not in dataset.descriptions:
            named = [text for text in dataset.descriptions if text]
            raise RasterError(
                f"{name} has no band named {band!r}; "
                f"its bands are {', '.join(named) if named else f'1 to {dataset.count}, unnamed'}."
            )
        return dataset.descriptions.index(band) + 1
    if not 1 <= band <= dataset.count:
        raise RasterError(f"{name} has bands 1 to {dataset.count}, and {asker} asks for {band}.")
    return int(band)
