"""Rasters read with rasterio: choice of bands, rescaling, nodata, damage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Interleaving, MaskFlags

from ..catalog.errors import RasterError
from ..catalog.hrefs import is_remote
from ._ahead import read_ahead
from ._buffers import Buffers
from ._geo import ground_sample_distance
from ._rasterfile import RasterFile
from .bands import BandSelection, lay_out_bands
from .pixels import Rectangle, Strip
from .stream import MAX_BAND_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.windows import Window

    from ..catalog import Access

LANES = 4
"""Handles that read a remote raster at the same time. Two hide most of the waiting at 30 ms a request,
four at 150 ms; each costs the memory of a band."""


class RasterSource:
    """A raster file or URL, read with rasterio (GDAL).

    Parameters
    ----------
    href
        File path or unsigned URL.
    selection
        Bands and rescaling.
    resolution
        Wanted GSD in metres: the coarsest overview that is at least as fine is read.
    threads
        GDAL's decoding threads.
    access
        How the bucket wants to be asked.
    sign
        How the URL is signed: the job's ``source.sign``. A signature that expires meanwhile is replaced.

    Raises
    ------
    RasterError
        If the raster can't be opened, or its bands or data type need a choice that wasn't made.
    """

    def __init__(
        self,
        href: str,
        selection: BandSelection | None = None,
        *,
        resolution: float | None = None,
        threads: int = 2,
        access: Access | None = None,
        sign: str | None = None,
    ) -> None:
        self.href = href
        self._selection = selection or BandSelection()
        self._file = RasterFile(href, threads=threads, access=access, sign=sign)
        self._twins: dict[int, RasterFile] = {}
        try:
            self._describe(resolution)
        except BaseException:
            self._file.close()
            raise
        # Handles whose decoders aren't shared would be so many threads more. And what decodes as one
        # would be fetched and decoded by each of them; GDAL shows a strip that is large as rows.
        several = is_remote(href) and self._file.shares_threads
        self.lanes = LANES if several and 1 < self.block[0] <= MAX_BAND_ROWS else 1

    def _describe(self, resolution: float | None) -> None:
        dataset = self._file.dataset
        if dataset.count == 0:
            raise RasterError(
                f"{self._file.name} has no bands; name one of its subdatasets instead."
            )
        self.full_size = (dataset.width, dataset.height)
        located = dataset.transform != rasterio.Affine.identity() or dataset.crs is not None
        self.transform = dataset.transform if located else None
        self.crs = _crs_text(dataset.crs)
        self._layout = lay_out_bands(dataset, self._file.name, self._selection)
        self._indexes = self._layout.indexes
        self.crop_channels: Mapping[str, tuple[int, ...]] = self._layout.crops
        level = self._choose_overview(dataset, resolution)
        if level is not None:
            self._file.use_overview(level)
            dataset = self._file.dataset
        self.width, self.height = dataset.width, dataset.height
        self.count = len(self._indexes)
        rescaled = self._layout.ranges[0] is not None
        self.dtype = np.dtype(np.uint8 if rescaled else dataset.dtypes[self._indexes[0] - 1])
        self.block = dataset.block_shapes[self._indexes[0] - 1]
        kinds = [np.dtype(dataset.dtypes[index - 1]) for index in set(self._indexes)]
        self.pixel_bytes: float = sum(kind.itemsize for kind in kinds)
        by_band = dataset.interleaving is Interleaving.band
        self._stored_bands = sorted(set(self._indexes)) if by_band else self._indexes[:1]
        flags = dataset.mask_flag_enums[self._indexes[0] - 1]
        self._nodata = dataset.nodata if MaskFlags.nodata in flags else None
        self._alpha = _alpha_band(dataset) if MaskFlags.alpha in flags else None
        self._masked = MaskFlags.per_dataset in flags or MaskFlags.alpha in flags

    def _choose_overview(
        self, dataset: rasterio.DatasetReader, resolution: float | None
    ) -> int | None:
        if resolution is None:
            return None
        if self.transform is None:
            raise RasterError(
                f"{self._file.name} has no georeferencing, so windows.resolution can't be reached; "
                "leave it out."
            )
        native = ground_sample_distance(self.transform, self.full_size, self.crs)
        factors = dataset.overviews(self._indexes[0])
        # A hair of tolerance: 0.1 m × 4 must count as a 0.4 m overview.
        fitting = [i for i, factor in enumerate(factors) if native * factor <= resolution * 1.001]
        return fitting[-1] if fitting else None

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Strip:
        """Decode a rectangle of the level.

        Raises
        ------
        RasterError
            If the file is cut short or the server fails after GDAL's own retries, and a fresh
            signature, where there is one, does not help.
        """
        return self._strip((x0, y0, x1, y1), self._file, Buffers())

    def read_each(self, rectangles: Sequence[Rectangle], ahead: int) -> Generator[Strip]:
        """Decode rectangles in order, up to `ahead` of them before they are asked for.

        Several handles take turns, so that there is always something to decode while the next bytes
        are on their way. GDAL's decoding threads are shared by all of them.

        Raises
        ------
        RasterError
            As `read`, after the rectangles before it.
        """
        lanes = min(self.lanes, ahead, len(rectangles))
        buffers = Buffers()
        readers = [self._lane(number, buffers) for number in range(lanes)]
        return read_ahead(readers, rectangles, ahead)

    def _lane(self, number: int, buffers: Buffers) -> Callable[[Rectangle], Strip]:
        """Reads by a handle of its own, which is opened by whoever is the first to read."""

        def read(bounds: Rectangle) -> Strip:
            if number > 0 and number not in self._twins:
                self._twins[number] = self._file.twin()
            return self._strip(bounds, self._twins.get(number, self._file), buffers)

        return read

    def _strip(self, bounds: Rectangle, file: RasterFile, buffers: Buffers) -> Strip:
        (data, valid), complained = file.read(bounds, partial(self._pixels, buffers))
        file.count(bounds, data.nbytes, self.block, self._stored_bands)
        damaged = file.damaged(bounds, complained, self.block, self._indexes)
        return Strip(bounds, self._layout.to_bytes(data, valid), valid, damaged)

    def _pixels(
        self, buffers: Buffers, dataset: rasterio.DatasetReader, window: Window
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """A window's pixels, and which of them are data."""
        # With the rest, since GDAL's threads keep nothing of a block for a second call.
        also = [] if self._alpha is None else [self._alpha]
        indexes = [*self._indexes, *also]
        shape = (len(indexes), int(window.height), int(window.width))
        out = buffers.empty(shape, dataset.dtypes[indexes[0] - 1])
        pixels = dataset.read(indexes, window=window, out=out)
        if also:
            return pixels[:-1], pixels[-1] != 0
        if self._masked:
            return pixels, dataset.dataset_mask(window=window) != 0
        return pixels, self._not_nodata(pixels)

    def _not_nodata(self, data: NDArray[Any]) -> NDArray[np.bool_] | None:
        if self._nodata is None:
            return None
        # Further bands, for crop models, don't decide which windows are looked at.
        data = data[: self._layout.own]
        if np.isnan(self._nodata):
            return np.asarray(~np.isnan(data.astype(np.float64, copy=False)).all(axis=0))
        return np.asarray((data != self._nodata).any(axis=0))

    @property
    def decoded_bytes(self) -> int:
        """Bytes of pixels that were decoded so far."""
        return sum(file.decoded_bytes for file in self._files())

    @property
    def stored_bytes(self) -> int:
        """Bytes that these pixels' blocks have in the file; 0 where its format doesn't tell."""
        return sum(file.stored_bytes for file in self._files())

    def close(self) -> None:
        """Release the file."""
        for file in self._files():
            file.close()

    def _files(self) -> list[RasterFile]:
        """All handles, in the order in which they may be closed."""
        return [*self._twins.values(), self._file]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    """The band that says which pixels are data; None where GDAL would scale it, as it does wide ones."""
    eight_bit = set(dataset.dtypes) == {"uint8"}
    return dataset.colorinterp.index(ColorInterp.alpha) + 1 if eight_bit else None


def _crs_text(crs: rasterio.CRS | None) -> str | None:
    if crs is None:
        return None
    code = crs.to_authority(confidence_threshold=100)
    return ":".join(code) if code else crs.to_wkt()
