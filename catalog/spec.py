"""The `source:` block of a job."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .hrefs import local_path, stable_href
from .intervals import parse_interval
from .signing import check_sign

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

BBox = tuple[float, float, float, float]
Ranges = tuple[tuple[float, float], ...]


class SourceSpec(BaseModel):
    """Where the scenes come from, and which of them are meant.

    Exactly one of `stac` and `rasters` is given.

    Attributes
    ----------
    stac
        URL of a STAC API; or path or URL of a STAC item, ItemCollection, stac-geoparquet,
        newline-delimited JSON or static catalog.
    rasters
        Paths or URLs of rasters, or folders of them; one string is taken as a list of one.
    collections
        Keep items of these collections only.
    bbox
        Area of interest in degrees: west, south, east, north. West may be greater than east for an
        area across the antimeridian.
    datetime
        Keep scenes of this time: an instant, or ``start/end`` where ``..`` means open (RFC 3339; a
        bare day, month or year means all of it).
    asset
        Key of the item's asset that is swept; needed where an item has several rasters.
    bands
        Three bands to read as red, green, blue: numbers from 1, or band names. Without `asset`, names may
        be those of assets of one band each.
    rescale
        ``(low, high)`` for all bands, or one pair for each, mapped to 0–255.
    intersects
        Area of interest: a file of polygons (GeoJSON, GeoPackage, GeoParquet), or a GeoJSON object.
        With `bbox`, what both share.
    filter
        Keep items for which this CQL2 expression (as JSON) is true.
    sortby
        Properties to sort by, with ``-`` before them for descending; STAC APIs only.
    limit
        Take at most so many scenes.
    alternate
        Take each asset's alternate href of this name (STAC's alternate-assets extension).
    sign
        How hrefs are signed before they are read: ``planetary-computer``, ``s3-requester-pays``, or a
        function from href to signed href, as ``package.module:function``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stac: str | None = None
    rasters: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None
    bbox: BBox | None = None
    intersects: str | dict[str, Any] | None = None
    datetime: str | None = None
    filter: dict[str, Any] | None = None
    sortby: tuple[str, ...] | None = Field(default=None, min_length=1)
    limit: int | None = Field(default=None, ge=1)
    asset: str | None = None
    bands: tuple[int | str, ...] | None = Field(default=None, min_length=1)
    rescale: tuple[tuple[float, float], ...] | None = Field(default=None, min_length=1)
    alternate: str | None = Field(default=None, min_length=1)
    sign: str | None = None

    @field_validator("rasters", "collections", "sortby", mode="before")
    @classmethod
    def _one_as_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("rasters")
    @classmethod
    def _some_rasters(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("source.rasters is an empty list: name at least one raster or folder")
        return value

    @field_validator("datetime", mode="before")
    @classmethod
    def _yaml_date(cls, value: object) -> object:
        # YAML reads an unquoted 2022-01-01 as a date, and 2022 as a number.
        if isinstance(value, dt.date):
            return value.isoformat()
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("datetime")
    @classmethod
    def _valid_datetime(cls, value: str | None) -> str | None:
        if value is not None:
            parse_interval(value)
        return value

    @field_validator("bbox")
    @classmethod
    def _valid_bbox(cls, value: BBox | None) -> BBox | None:
        if value is not None:
            check_bbox(value)
        return value

    @field_validator("bands")
    @classmethod
    def _valid_bands(cls, value: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        return check_bands(value, "source.bands")

    @field_validator("sign")
    @classmethod
    def _known_signer(cls, value: str | None) -> str | None:
        if value is not None:
            check_sign(value)
        return value

    @field_validator("rescale", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return as_pairs(value)

    @field_validator("rescale")
    @classmethod
    def _ascending(cls, value: Ranges | None) -> Ranges | None:
        return check_ranges(value, "source.rescale")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.stac is None) == (self.rasters is None):
            raise ValueError("source needs exactly one of 'stac' and 'rasters'")
        if self.rasters is not None:
            for key in ("collections", "asset", "filter", "sortby", "alternate"):
                if getattr(self, key) is not None:
                    raise ValueError(f"source.{key} goes with 'stac'; plain rasters have none")
        return self


def source_key(
    spec: SourceSpec, side_assets: Sequence[str] = (), side_bands: Sequence[str] = ()
) -> str:
    """Hash of all that decides a set of scenes (16 hex digits).

    Signatures in hrefs don't count, nor does the way in which hrefs are signed.

    Parameters
    ----------
    spec
        The source.
    side_assets, side_bands
        As for `open_source`.
    """
    source = spec.model_dump(mode="json", exclude={"rescale", "sign"})
    if spec.stac is not None:
        source["stac"] = _place(spec.stac)
    source["rasters"] = [_place(href) for href in spec.rasters or ()]
    content = {"source": source, "assets": list(side_assets), "bands": list(side_bands)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _place(href: str) -> str:
    path = local_path(href)
    if path is None:
        return stable_href(href)
    return href if href.startswith("/vsi") else str(Path(path).expanduser().absolute())


def check_bands(bands: tuple[int | str, ...] | None, key: str) -> tuple[int | str, ...] | None:
    """Return `bands`; raise ValueError if a number is below 1."""
    for band in bands or ():
        if isinstance(band, int) and band < 1:
            raise ValueError(f"{key} has {band}: bands are numbered from 1")
    return bands


def as_pairs(value: object) -> object:
    """Take ``[low, high]`` for ``[[low, high]]``; leave anything else alone."""
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if isinstance(low, int | float) and isinstance(high, int | float):
            return (value,)
    return value


def check_ranges(ranges: Ranges | None, key: str) -> Ranges | None:
    """Return `ranges`; raise ValueError if one does not ascend."""
    for low, high in ranges or ():
        if not low < high:
            raise ValueError(f"{key} has [{low}, {high}]: low must be below high")
    return ranges


def check_bbox(bbox: BBox) -> None:
    """Raise ValueError, in one sentence, unless `bbox` is a sensible W, S, E, N in degrees."""
    west, south, east, north = bbox
    shown = f"bbox {west:g},{south:g},{east:g},{north:g}"
    if not (
        -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= 90 and -90 <= north <= 90
    ):
        raise ValueError(f"{shown} is not in degrees: give west,south,east,north in EPSG:4326")
    if south >= north:
        raise ValueError(f"{shown}: south must be below north (the order is west,south,east,north)")
    # Across the antimeridian west is greater than east; if that spans more than half the globe, the
    # two were swapped.
    if west == east or (west > east and east - west + 360 > 180):
        raise ValueError(f"{shown}: west must be below east (the order is west,south,east,north)")


def bbox_geometry(bbox: BBox) -> BaseGeometry:
    """Return `bbox` as a polygon in EPSG:4326, in two parts where it crosses the antimeridian."""
    import shapely

    west, south, east, north = bbox
    if west < east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon(
        [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]
    )
