"""One of GDAL's handles on a raster: signed, opened, read, and opened again when that fails."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from copy import copy
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from ..catalog.errors import RasterError
from ..catalog.gdal import gdal_env
from ..catalog.hrefs import gdal_path, public_href, scrub
from ..catalog.signing import is_signed, signed_href
from ._complaints import Complaints
from .pixels import Rectangle, overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rasterio import DatasetReader

    from ..catalog import Access

T = TypeVar("T")


class RasterFile:
    """An open file or URL, for one thread at a time.

    Parameters
    ----------
    href
        File path or unsigned URL.
    threads
        GDAL's decoding threads. They are the process's: handles that read at the same time share them.
    access
        How the bucket wants to be asked.
    sign
        How the URL is signed: the job's ``source.sign``. A signature that expires meanwhile is replaced.

    Raises
    ------
    RasterError
        If it can't be opened.
    """

    def __init__(
        self, href: str, *, threads: int = 2, access: Access | None = None, sign: str | None = None
    ) -> None:
        self._href, self._sign = href, sign
        self.name = public_href(href)
        self._env = gdal_env(href, access)
        # The option is GTiff's own; other drivers would warn about it.
        self._options: dict[str, Any] = (
            {"NUM_THREADS": str(threads)} if _is_tiff(href) and threads > 1 else {}
        )
        # GDAL complains once about a corrupt block, and gives its wrong pixels from its cache later on.
        self._damaged: set[Rectangle] = set()
        self.decoded_bytes = self.stored_bytes = 0
        # Twins share it: what closes or opens makes GDAL forget the header that another is reading.
        self._switching = threading.Lock()
        self.dataset = self._open()

    @property
    def shares_threads(self) -> bool:
        """Whether more handles decode in no more threads than this one."""
        return bool(self._options)

    def use_overview(self, level: int) -> None:
        """Read an overview from now on."""
        self._options["overview_level"] = level
        self.close()
        self.dataset = self._open()

    def twin(self) -> RasterFile:
        """Open the same level once more, for another thread; to be closed before this one.

        It asks for nothing: what GDAL keeps of the header, by URL, serves both. So they also agree on
        what the file is, if somebody replaces it just now.
        """
        twin = copy(self)
        twin._damaged, twin.decoded_bytes, twin.stored_bytes = set(), 0, 0
        twin.dataset = twin._or_anew(
            lambda: twin._open_path(twin._path, CPL_VSIL_CURL_NON_CACHED="")
        )
        return twin

    def _open(self) -> DatasetReader:
        """Open the level."""
        return self._or_anew(lambda: self._open_signed(anew=False))

    def _or_anew(self, work: Callable[[], DatasetReader]) -> DatasetReader:
        """What `work` opens; where the URL is signed, with a fresh signature if need be."""
        try:
            return work()
        except RasterError:
            if not is_signed(self._href, self._sign):
                raise
        # rasterio does not tell a 403 from other failures, so any may mean that a signature expired.
        return self._open_signed(anew=True)

    def _open_signed(self, *, anew: bool) -> DatasetReader:
        self._path = gdal_path(signed_href(self._href, self._sign, anew=anew))
        return self._open_path(self._path)

    def _open_path(self, path: str, **settings: Any) -> DatasetReader:
        env = rasterio.Env(**{**self._env, **settings})
        try:
            with self._switching, env, warnings.catch_warnings():
                # Missing georeferencing is no surprise here, and where it matters it is an error.
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(path, **self._options)
                # rasterio wants these at the first read, and holds Python's lock while GDAL gets them.
                _ = dataset.mask_flag_enums
                return dataset
        except (RasterioError, OSError) as error:
            # Without its cause, whose text has the signed URL.
            raise RasterError(f"{self.name} can't be opened: {_reason(error)}.") from None

    def read(
        self, bounds: Rectangle, pixels: Callable[[DatasetReader, Window], T]
    ) -> tuple[T, bool]:
        """Give what `pixels` reads of a rectangle, and whether GDAL had complaints.

        Raises
        ------
        RasterError
            If the file is cut short or the server fails after GDAL's own retries, and a fresh
            signature, where there is one, does not help.
        """
        try:
            return self._read(bounds, pixels)
        except RasterError:
            if not is_signed(self._href, self._sign):
                raise
        # Once for each rectangle: a scene may well outlast several signatures.
        self.close()
        self.dataset = self._open_signed(anew=True)
        return self._read(bounds, pixels)

    def _read(
        self, bounds: Rectangle, pixels: Callable[[DatasetReader, Window], T]
    ) -> tuple[T, bool]:
        try:
            with rasterio.Env(**self._env), Complaints() as complaints:
                return pixels(self.dataset, window_of(bounds)), bool(complaints)
        except (RasterioError, OSError) as error:
            raise RasterError(
                f"{self.name} can't be read at rows {bounds[1]} to {bounds[3]}: {_reason(error)}."
            ) from None

    def count(
        self, bounds: Rectangle, decoded: int, block: tuple[int, int], bands: Sequence[int]
    ) -> None:
        """Count a rectangle that was read: bytes of pixels, and in the file of its `bands`' blocks."""
        self.decoded_bytes += decoded
        if self.dataset.driver == "GTiff":
            self.stored_bytes += self._stored_in(bounds, block, bands)

    def _stored_in(self, bounds: Rectangle, block: tuple[int, int], bands: Sequence[int]) -> int:
        """Bytes of a rectangle's blocks, which a TIFF's directory tells to whoever has read them."""
        x0, y0, x1, y1 = bounds
        high, wide = block
        total = 0.0
        for row in range(y0 // high, -(-y1 // high)):
            # A block higher than the rectangle is read for several: each counts its part.
            bottom = min((row + 1) * high, self.dataset.height)
            share = (min(y1, bottom) - max(y0, row * high)) / (bottom - row * high)
            for column in range(x0 // wide, -(-x1 // wide)):
                for band in bands:
                    name = f"BLOCK_SIZE_{column}_{row}"
                    total += share * int(self.dataset.get_tag_item(name, "TIFF", bidx=band) or 0)
        return round(total)

    def damaged(
        self, bounds: Rectangle, complained: bool, block: tuple[int, int], bands: Sequence[int]
    ) -> tuple[Rectangle, ...]:
        """Which parts of a rectangle are not to be trusted, complained of now or before."""
        if complained:
            self._damaged |= set(self._localise(bounds, block, bands))
        return tuple(bad for bad in self._damaged if overlap(bad, bounds))

    def _localise(
        self, bounds: Rectangle, block: tuple[int, int], bands: Sequence[int]
    ) -> tuple[Rectangle, ...]:
        """Which blocks of a rectangle the decoder complains about.

        GDAL keeps the wrong pixels in its cache and complains once only, so this reads the rectangle
        again, block by block, from a fresh handle.
        """
        x0, y0, x1, y1 = bounds
        high, wide = block
        damaged: list[Rectangle] = []
        fresh = copy(self)
        fresh.dataset = dataset = self._open()
        with rasterio.Env(**self._env), closing(fresh):
            for top in range(y0 - y0 % high, y1, high):
                for left in range(x0 - x0 % wide, x1, wide):
                    right, bottom = min(left + wide, dataset.width), min(top + high, dataset.height)
                    part = (left, top, right, bottom)
                    with Complaints() as complaints, suppress(RasterioError):
                        dataset.read(list(bands), window=window_of(part))
                    if complaints:
                        damaged.append(part)
        # A complaint that can't be pinned to a block taints the whole rectangle.
        return tuple(damaged) or (bounds,)

    def close(self) -> None:
        """Release the file."""
        with self._switching:
            self.dataset.close()


def window_of(bounds: Rectangle) -> Window:
    """A rectangle as rasterio wants it."""
    x0, y0, x1, y1 = bounds
    return Window(x0, y0, x1 - x0, y1 - y0)  # type: ignore[call-arg]


def _is_tiff(href: str) -> bool:
    return PurePosixPath(href.partition("?")[0]).suffix.lower() in {".tif", ".tiff"}


def _reason(error: BaseException) -> str:
    """GDAL's own words, from the deepest cause, without secrets and without a final stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = getattr(error, "errmsg", None) or str(error) or type(error).__name__
    return scrub(str(text)).strip().rstrip(".")
