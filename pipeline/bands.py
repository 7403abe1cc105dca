"""Which bands of a raster are read, for whom, and how they become 8 bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from rasterio.enums import ColorInterp

from ..catalog.errors import RasterError
from ..models.data.headers import Banded, band_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bands = tuple[int | str, ...]
Ranges = tuple[tuple[float, float], ...]
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class BandRequest:
    """What a crop model wants of a raster; None for the detector's bands and rescaling."""

    bands: Bands | None = None
    rescale: Ranges | None = None

    def __bool__(self) -> bool:
        return self.bands is not None or self.rescale is not None


class BandTable(Banded, Protocol):
    """What is to be known of a raster's bands to choose some: an open raster tells, or a stack."""

    @property
    def indexes(self) -> Sequence[int]:
        """Their numbers, from 1."""
        ...

    @property
    def dtypes(self) -> Sequence[str]:
        """Their data types."""
        ...

    @property
    def colorinterp(self) -> Sequence[ColorInterp]:
        """What they are."""
        ...


@dataclass(frozen=True, slots=True)
class BandSelection:
    """Which bands to take and how to bring them to 8 bit.

    Parameters
    ----------
    bands
        1-based numbers or band descriptions; None takes those that are colours, or all the raster has
        if they are for `anyone`.
    rescale
        (low, high) for each band, or one for all: mapped to 0–255 and clipped, by rio-tiler.
    use
        ``detector`` demands three bands of 8 bit after selection and rescaling; ``crops`` bands of 8
        bit or floats; ``anyone`` nothing; ``stack`` the band of the one name given, or the only one.
    crops
        What crop models want of the same raster, by column prefix: it is read in the same go, as
        further channels.
    """

    bands: Bands | None = None
    rescale: Ranges | None = None
    use: Literal["detector", "crops", "stack", "anyone"] = "detector"
    crops: Mapping[str, BandRequest] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BandLayout:
    """The channels that are read.

    Parameters
    ----------
    indexes
        The band of each channel, from 1.
    ranges
        What each is rescaled from; None leaves it alone.
    own
        How many of them are the selection's own; the rest are for crop models.
    crops
        The channels of each crop model that asked for some.
    """

    indexes: tuple[int, ...]
    ranges: tuple[tuple[float, float] | None, ...]
    own: int
    crops: Mapping[str, tuple[int, ...]]

    def to_bytes(self, data: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Rescale (channels, h, w); pixels that are not `valid` become 0 in what is rescaled."""
        some = [i for i, limits in enumerate(self.ranges) if limits is not None]
        if not some:
            return data
        from rio_tiler.models import ImageData

        part = data if len(some) == len(data) else data[some]
        mask = np.zeros(part.shape, bool) if valid is None else np.broadcast_to(~valid, part.shape)
        image = ImageData(np.ma.MaskedArray(part, mask=mask))  # pyright: ignore[reportCallIssue]
        image.rescale(in_range=[limits for limits in self.ranges if limits is not None])
        pixels = np.ma.filled(image.array, 0)
        if len(some) == len(data):
            return pixels
        mixed = data.astype(np.uint8)
        mixed[some] = pixels
        return mixed


def select_bands(
    bands: Sequence[int | str] | None,
    rescale: object,
    crops: Mapping[str, BandRequest] = _NONE,
) -> BandSelection:
    """Build a detector's selection from what a user passed (`rescale` as one pair or a list)."""
    pairs: Ranges | None = None
    if rescale is not None:
        values = np.asarray(rescale, dtype=float).reshape(-1, 2)
        pairs = tuple((float(low), float(high)) for low, high in values)
    return BandSelection(tuple(bands) if bands is not None else None, pairs, crops=dict(crops))


def lay_out_bands(dataset: BandTable, name: str, selection: BandSelection) -> BandLayout:
    """Decide which channels to read of an opened raster.

    Raises
    ------
    RasterError
        If its bands or data type need a choice that wasn't made.
    """
    key = "crop_models" if selection.use == "crops" else "source"
    own = _own_bands(dataset, name, selection, key)
    ranges = _own_ranges(dataset, name, selection, key, own)
    channels = list(zip(own, ranges, strict=True))
    crops: dict[str, tuple[int, ...]] = {}
    for crop, request in selection.crops.items():
        wanted = _crop_channels(dataset, name, crop, request, own, ranges)
        channels += [channel for channel in dict.fromkeys(wanted) if channel not in channels]
        crops[crop] = tuple(channels.index(channel) for channel in wanted)
    return BandLayout(
        tuple(index for index, _ in channels),
        tuple(limits for _, limits in channels),
        len(own),
        crops,
    )


def _own_bands(
    dataset: BandTable, name: str, selection: BandSelection, key: str
) -> tuple[int, ...]:
    wanted = selection.bands
    if selection.use == "stack":
        return (_stacked_band(dataset, name, str((wanted or ("",))[0])),)
    if wanted is not None:
        indexes = tuple(
            band_number(dataset, band, name=name, asker=f"{key}.bands") for band in wanted
        )
        if selection.use == "detector" and len(indexes) != 3:
            raise RasterError(
                f"source.bands names {len(indexes)} bands, but detectors take 3: write for "
                "example bands: [1, 2, 3]."
            )
        return indexes
    every = tuple(dataset.indexes)
    if selection.use == "anyone":
        return every
    pairs = zip(every, dataset.colorinterp, strict=True)
    colour = tuple(i for i, kind in pairs if kind != ColorInterp.alpha)
    if len(colour) == 3:
        return colour
    if selection.use == "crops":
        raise RasterError(
            f"{name} has {len(colour)} bands, and crops have three colours unless the crop model or "
            "crop_models.bands says which bands, for example [1]."
        )
    raise RasterError(
        f"{name} has {len(colour)} bands and detectors take 3: say which with "
        "source.bands (CLI: --bands), for example [1, 2, 3], or [1, 1, 1] for grey."
    )


def _stacked_band(dataset: BandTable, name: str, band: str) -> int:
    colours = [i for i in dataset.indexes if dataset.colorinterp[i - 1] != ColorInterp.alpha]
    if len(colours) == 1:
        return colours[0]
    if band in dataset.descriptions:
        return band_number(dataset, band, name=name)
    raise RasterError(
        f"{name} has {len(colours)} bands, none of them named '{band}', and a scene of several assets "
        "takes one from each: name other assets in source.bands, or this one in source.asset."
    )


def _own_ranges(
    dataset: BandTable,
    name: str,
    selection: BandSelection,
    key: str,
    own: tuple[int, ...],
) -> tuple[tuple[float, float] | None, ...]:
    if selection.use != "anyone" and dataset.colorinterp[own[0] - 1] == ColorInterp.palette:
        raise RasterError(
            f"{name} holds palette indices, not colours; expand it first with "
            "gdal_translate -expand rgb."
        )
    if selection.use == "stack":
        return (None,)
    if selection.rescale is not None:
        return _for_each(selection.rescale, len(own), f"{key}.rescale")
    kinds = {dataset.dtypes[index - 1] for index in own}
    if selection.use == "detector" and kinds != {"uint8"}:
        raise RasterError(
            f"{name} is {'/'.join(sorted(kinds))}, and detectors take 8-bit colour: say which "
            "values are black and white with source.rescale (CLI: --rescale), for example [0, 3000]."
        )
    if selection.use == "crops" and not all(
        kind == "uint8" or np.dtype(kind).kind == "f" for kind in kinds
    ):
        raise RasterError(
            f"{name} is {'/'.join(sorted(kinds))}, and crops are 8-bit or floats: say which values are "
            "black and white with crop_models.rescale, for example [0, 3000]."
        )
    return (None,) * len(own)


def _for_each(ranges: Ranges, count: int, key: str) -> Ranges:
    if len(ranges) not in (1, count):
        raise RasterError(
            f"{key} has {len(ranges)} ranges for {count} bands; give one, or one each."
        )
    return ranges * count if len(ranges) == 1 else ranges


def _crop_channels(
    dataset: BandTable,
    name: str,
    crop: str,
    request: BandRequest,
    own: tuple[int, ...],
    own_ranges: tuple[tuple[float, float] | None, ...],
) -> list[tuple[int, tuple[float, float] | None]]:
    """Band and range of each channel of one crop model."""
    indexes = own
    if request.bands is not None:
        indexes = tuple(
            band_number(dataset, band, name=name, asker=f"crop model {crop}")
            for band in request.bands
        )
    if request.rescale is not None:
        ranges = _for_each(request.rescale, len(indexes), "crop_models.rescale")
        return list(zip(indexes, ranges, strict=True))
    # Without a word of its own: as for the detector, where that is clear.
    known = dict(zip(own, own_ranges, strict=True))
    shared = own_ranges[0] if len(set(own_ranges)) == 1 else None
    channels: list[tuple[int, tuple[float, float] | None]] = []
    for index in indexes:
        limits = known.get(index, shared)
        if limits is None and dataset.dtypes[index - 1] != "uint8":
            raise RasterError(
                f"{name}: band {index} is {dataset.dtypes[index - 1]}, and source.rescale does not say "
                f"which of its values are black and white; do so for crop model {crop} with "
                "crop_models.rescale."
            )
        channels.append((index, limits))
    return channels
