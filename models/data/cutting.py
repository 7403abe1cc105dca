"""Cut crops out of rasters: the same pixels as the pipeline's, with few reads and little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ...catalog.errors import RasterError
from ..crops import detection_bounds
from .headers import band_number, gdal_options, open_image, reason, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

CELL = 2048
"""About the side of what is read at once, in pixels."""


class CropRaster:
    """A raster opened to cut crops out of it. For one thread and one process.

    Parameters
    ----------
    path
        File or URL.
    bands
        1-based numbers or names of the bands of a crop; None for the three that are colours.
    rescale
        The values that become 0 and 255: one pair, or one for each band. Needed for integers of
        more than 8 bit.

    Attributes
    ----------
    width, height, num_bands
        Size of the raster, and bands of a crop.

    Raises
    ------
    RasterError
        If it can't be opened, or its bands or data type need a choice that wasn't made.
    """

    def __init__(
        self,
        path: str | Path,
        bands: Sequence[int | str] | None = None,
        rescale: Sequence[Any] | None = None,
    ) -> None:
        self._name, self._options = shown(str(path)), gdal_options(str(path))
        # Not shared: GDAL would hand the same dataset to two readers.
        self._dataset = open_image(str(path), sharing=False)
        try:
            self._indexes = self._choose(bands)
            self._rescale = self._check_values(rescale)
        except RasterError:
            self._dataset.close()
            raise
        self.width, self.height = self._dataset.width, self._dataset.height
        self.num_bands = len(self._indexes)

    def _choose(self, bands: Sequence[int | str] | None) -> list[int]:
        dataset = self._dataset
        if bands is not None:
            return [band_number(dataset, band) for band in bands]
        pairs = list(zip(dataset.indexes, dataset.colorinterp, strict=True))
        colours = [i for i, kind in pairs if kind != ColorInterp.alpha]
        if len(colours) != 3 or pairs[0][1] == ColorInterp.palette:
            what = "a palette" if pairs[0][1] == ColorInterp.palette else f"{len(colours)} bands"
            raise RasterError(
                f"{self._name} has {what}, and crops have 3 colours unless the model says which "
                "bands, for example CropModel(bands=[1, 2, 3, 4]), or [1, 1, 1] for grey."
            )
        return colours

    def _check_values(self, rescale: Sequence[Any] | None) -> list[tuple[float, float]] | None:
        if rescale is not None:
            pairs = np.asarray(rescale, float).reshape(-1, 2).tolist()
            if len(pairs) not in (1, len(self._indexes)) or any(a >= b for a, b in pairs):
                raise RasterError(
                    f"rescale is {rescale} for {len(self._indexes)} bands: give (low, high), or one "
                    "such pair for each band, the lower value first."
                )
            each = [(float(low), float(high)) for low, high in pairs]
            return each * len(self._indexes) if len(each) == 1 else each
        for index in self._indexes:
            kind = np.dtype(self._dataset.dtypes[index - 1])
            if kind != np.uint8 and kind.kind != "f":
                raise RasterError(
                    f"{self._name} is {kind}, and crops are 8-bit or floats: say which values are "
                    "black and white with rescale, for example (0, 3000)."
                )
        return None

    def read(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[Any]:
        """Read a rectangle as (bands, y1 − y0, x1 − x0), uint8, or float32 where it is floats.

        Pixels without data are 0, but in 8-bit rasters that are not rescaled.

        Raises
        ------
        RasterError
            If the file is cut short or the server fails.
        """
        window = Window(x0, y0, x1 - x0, y1 - y0)  # type: ignore[call-arg]
        try:
            with rasterio.Env(**self._options):
                data = self._dataset.read(self._indexes, window=window)
                if self._rescale is not None:
                    return self._to_bytes(data, window, self._rescale)
                if data.dtype == np.uint8:
                    return data
                data = data.astype(np.float32)
                # As in the pipeline: one NaN would make the crop's class NaN.
                data[:, ~self._valid(data, window)] = 0
                data[~np.isfinite(data)] = 0
                return data
        except (RasterioError, OSError) as error:
            raise RasterError(
                f"{self._name} can't be read at rows {y0} to {y1}: {reason(error)}."
            ) from error

    def _to_bytes(
        self, data: NDArray[Any], window: Window, pairs: list[tuple[float, float]]
    ) -> NDArray[np.uint8]:
        """Rescale as the pipeline does: by rio-tiler, pixels without data become 0."""
        from rio_tiler.models import ImageData

        mask = np.broadcast_to(~self._valid(data, window), data.shape)
        image = ImageData(np.ma.MaskedArray(data, mask=mask))  # pyright: ignore[reportCallIssue]
        image.rescale(in_range=pairs)
        return np.ma.filled(image.array, 0)

    def _valid(self, data: NDArray[Any], window: Window) -> NDArray[np.bool_]:
        first = self._indexes[0] - 1
        flags, nodata = self._dataset.mask_flag_enums[first], self._dataset.nodata
        if MaskFlags.per_dataset in flags or MaskFlags.alpha in flags:
            return self._dataset.dataset_mask(window=window) != 0
        if MaskFlags.nodata not in flags or nodata is None:
            return np.ones(data.shape[1:], bool)
        if np.isnan(nodata):
            return np.asarray(~np.isnan(data.astype(np.float64, copy=False)).all(axis=0))
        return np.asarray((data != nodata).any(axis=0))

    def crops(self, boxes: ArrayLike, expand: float = 0) -> Iterator[tuple[int, NDArray[Any]]]:
        """Cut the crops of boxes, near ones with one read.

        Parameters
        ----------
        boxes
            (N, 4): xmin, ymin, xmax, ymax in pixels; where they are cut is `detection_bounds`.
        expand
            Pixels of context on each side.

        Yields
        ------
        tuple
            Number of the box and its pixels (h, w, bands), in the order of the file's blocks.
        """
        bounds = detection_bounds(boxes, expand, self.width, self.height)
        cell_height, cell_width = _cell(self._dataset.block_shapes[self._indexes[0] - 1])
        columns = -(-self.width // cell_width)
        cells = bounds[:, 1] // cell_height * columns + bounds[:, 0] // cell_width
        order = np.argsort(cells, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
            if len(group) == 0:
                continue
            left, top = bounds[group, :2].min(0).tolist()
            right, bottom = bounds[group, 2:].max(0).tolist()
            pixels = self.read(left, top, right, bottom)
            for number, (x0, y0, x1, y1) in zip(
                group.tolist(), bounds[group].tolist(), strict=True
            ):
                crop = pixels[:, y0 - top : y1 - top, x0 - left : x1 - left]
                yield number, np.ascontiguousarray(crop.transpose(1, 2, 0))

    def close(self) -> None:
        """Release the file."""
        self._dataset.close()

    def __enter__(self) -> CropRaster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cell(block: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what is read at once: whole blocks, about CELL² pixels."""
    height, width = block
    wide = -(-CELL // width) * width
    return max(1, CELL * CELL // wide // height) * height, wide
