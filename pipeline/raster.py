"""Rasters read with rasterio: choice of bands, rescaling, nodata, damage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from ..catalog.errors import RasterError
from ..catalog.gdal import gdal_env
from ..catalog.hrefs import gdal_path, public_href, scrub
from ..catalog.signing import is_signed, signed_href
from ._complaints import Complaints
from ._geo import ground_sample_distance
from .bands import BandSelection, lay_out_bands
from .pixels import Rectangle, Strip, overlap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..catalog import Access


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
        self._name = public_href(href)
        self._env = gdal_env(href, access)
        self._sign = sign
        self._selection = selection or BandSelection()
        # The option is GTiff's own; other drivers would warn about it.
        tiff = PurePosixPath(href.partition("?")[0]).suffix.lower() in {".tif", ".tiff"}
        self._options: dict[str, Any] = (
            {"NUM_THREADS": str(threads)} if tiff and threads > 1 else {}
        )
        # GDAL complains once about a corrupt block, and gives its wrong pixels from its cache later on.
        self._damaged: set[Rectangle] = set()
        self.decoded_bytes = self.stored_bytes = 0
        self._level: int | None = None
        self._dataset = self._open()
        try:
            self._describe(resolution)
        except BaseException:
            self._dataset.close()
            raise

    def _open(self, **options: Any) -> rasterio.DatasetReader:
        """Open the level; where its URL is signed, once more with a fresh signature if need be."""
        try:
            return self._open_signed(anew=False, **options)
        except RasterError:
            if not is_signed(self.href, self._sign):
                raise
        # rasterio does not tell a 403 from other failures, so any may mean that a signature expired.
        return self._open_signed(anew=True, **options)

    def _open_signed(self, *, anew: bool, **options: Any) -> rasterio.DatasetReader:
        if self._level is not None:
            options["overview_level"] = self._level
        path = gdal_path(signed_href(self.href, self._sign, anew=anew))
        try:
            with rasterio.Env(**self._env), warnings.catch_warnings():
                # Missing georeferencing is no surprise here, and where it matters it is an error.
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                return rasterio.open(path, **self._options, **options)
        except (RasterioError, OSError) as error:
            # Without its cause, whose text has the signed URL.
            raise RasterError(f"{self._name} can't be opened: {_reason(error)}.") from None

    def _describe(self, resolution: float | None) -> None:
        dataset = self._dataset
        if dataset.count == 0:
            raise RasterError(f"{self._name} has no bands; name one of its subdatasets instead.")
        self.full_size = (dataset.width, dataset.height)
        located = dataset.transform != rasterio.Affine.identity() or dataset.crs is not None
        self.transform = dataset.transform if located else None
        self.crs = _crs_text(dataset.crs)
        self._layout = lay_out_bands(dataset, self._name, self._selection)
        self._indexes = self._layout.indexes
        self.crop_channels: Mapping[str, tuple[int, ...]] = self._layout.crops
        self._level = self._choose_overview(dataset, resolution)
        if self._level is not None:
            dataset.close()
            self._dataset = dataset = self._open()
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
                f"{self._name} has no georeferencing, so windows.resolution can't be reached; "
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
        bounds = (x0, y0, x1, y1)
        try:
            data, valid, complaints = self._decode(bounds)
        except RasterError:
            if not is_signed(self.href, self._sign):
                raise
            # Once for each rectangle: a scene may well outlast several signatures.
            self._dataset.close()
            self._dataset = self._open_signed(anew=True, sharing=False)
            data, valid, complaints = self._decode(bounds)
        if complaints:
            self._damaged |= set(self._localise(bounds))
        damaged = tuple(bad for bad in self._damaged if overlap(bad, bounds))
        return Strip(bounds, self._layout.to_bytes(data, valid), valid, damaged)

    def _decode(
        self, bounds: Rectangle
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None, list[str]]:
        """Pixels of a rectangle, which of them are data, and what GDAL has to say."""
        x0, y0, x1, y1 = bounds
        window = Window(x0, y0, x1 - x0, y1 - y0)  # type: ignore[call-arg]
        try:
            with rasterio.Env(**self._env), Complaints() as complaints:
                # With the rest, since GDAL's threads keep nothing of a block for a second call.
                also = [] if self._alpha is None else [self._alpha]
                pixels = self._dataset.read([*self._indexes, *also], window=window)
                data = pixels[: len(self._indexes)]
                self.decoded_bytes += data.nbytes
                self.stored_bytes += self._stored_in(bounds)
                valid = pixels[-1] != 0 if also else self._valid(data, window)
                return data, valid, complaints
        except (RasterioError, OSError) as error:
            raise RasterError(
                f"{self._name} can't be read at rows {y0} to {y1}: {_reason(error)}."
            ) from None

    def _stored_in(self, bounds: Rectangle) -> int:
        """Bytes in the file of a rectangle's blocks, which a TIFF's directory tells."""
        if self._dataset.driver != "GTiff":
            return 0
        x0, y0, x1, y1 = bounds
        high, wide = self.block
        total = 0.0
        for row in range(y0 // high, -(-y1 // high)):
            # A block higher than the rectangle is read for several: each counts its part.
            bottom = min((row + 1) * high, self.height)
            share = (min(y1, bottom) - max(y0, row * high)) / (bottom - row * high)
            for column in range(x0 // wide, -(-x1 // wide)):
                for band in self._stored_bands:
                    name = f"BLOCK_SIZE_{column}_{row}"
                    total += share * int(self._dataset.get_tag_item(name, "TIFF", bidx=band) or 0)
        return round(total)

    def _valid(self, data: NDArray[Any], window: Window) -> NDArray[np.bool_] | None:
        if self._masked:
            return self._dataset.dataset_mask(window=window) != 0
        if self._nodata is None:
            return None
        # Further bands, for crop models, don't decide which windows are looked at.
        data = data[: self._layout.own]
        if np.isnan(self._nodata):
            return np.asarray(~np.isnan(data.astype(np.float64, copy=False)).all(axis=0))
        return np.asarray((data != self._nodata).any(axis=0))

    def _localise(self, bounds: Rectangle) -> tuple[Rectangle, ...]:
        """Which blocks of a rectangle the decoder complains about.

        GDAL keeps the wrong pixels in its cache and complains once only, so this reads the rectangle
        again, block by block, from a fresh handle.
        """
        x0, y0, x1, y1 = bounds
        high, wide = self.block
        damaged: list[Rectangle] = []
        with rasterio.Env(**self._env), self._open(sharing=False) as dataset:
            for top in range(y0 - y0 % high, y1, high):
                for left in range(x0 - x0 % wide, x1, wide):
                    right, bottom = min(left + wide, self.width), min(top + high, self.height)
                    block = Window(left, top, right - left, bottom - top)  # type: ignore[call-arg]
                    with Complaints() as complaints, suppress(RasterioError):
                        dataset.read(list(self._indexes), window=block)
                    if complaints:
                        damaged.append((left, top, right, bottom))
        # A complaint that can't be pinned to a block taints the whole rectangle.
        return tuple(damaged) or (bounds,)

    def close(self) -> None:
        """Release the file."""
        self._dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    """The band that says which pixels are data; None where GDAL would scale it, as it does wide ones."""
    eight_bit = set(dataset.dtypes) == {"uint8"}
    return dataset.colorinterp.index(ColorInterp.alpha) + 1 if eight_bit else None


def _reason(error: BaseException) -> str:
    """GDAL's own words, from the deepest cause, without secrets and without a final stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = getattr(error, "errmsg", None) or str(error) or type(error).__name__
    return scrub(str(text)).strip().rstrip(".")


def _crs_text(crs: rasterio.CRS | None) -> str | None:
    if crs is None:
        return None
    code = crs.to_authority(confidence_threshold=100)
    return ":".join(code) if code else crs.to_wkt()
