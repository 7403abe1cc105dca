"""A scene: one raster of the source, known well enough to plan without opening it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from .hrefs import stable_href

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True)
class Access:
    """How a bucket wants to be asked, as the STAC storage extension says.

    Parameters
    ----------
    region
        Of the bucket; None for the environment's.
    requester_pays
        Whether whoever reads is charged, and has to say that they agree.
    """

    region: str | None = None
    requester_pays: bool = False


@dataclass(frozen=True, slots=True)
class SideAsset:
    """Another raster of a scene's item: a band of its own, or one that crop models cut from.

    Parameters
    ----------
    href
        An unsigned URL or an absolute path.
    updated, checksum, access
        As for a `Scene`.
    """

    href: str
    updated: str | None = None
    checksum: str | None = None
    access: Access = Access()


@dataclass(frozen=True, slots=True)
class Scene:
    """One raster to sweep.

    Parameters
    ----------
    id
        Unique within a plan and safe as a file name; names the commit record and the data file.
    href
        Where the pixels are: an unsigned URL or an absolute path.
    item_id, collection, asset
        What the source calls it; `asset` is the key of the item's asset. Plain rasters have neither
        collection nor asset.
    datetime
        Acquisition time, UTC, timezone-aware.
    updated
        The source's own `updated` (asset's before item's), verbatim.
    checksum
        The asset's `file:checksum`, an ETag, or size and modification time of a local file.
    footprint
        Outline in EPSG:4326, or None when unknown.
    crs, transform, shape
        `proj:code`/WKT, the six affine coefficients in rasterio's order (a, b, c, d, e, f) and
        (height, width) in pixels; None where the source does not say and the header can't be read.
    error
        Why the raster can't be read, for rasters the user named that are missing or unreadable.
        Such a scene is still planned, and ends as a failed record.
    assets
        Other rasters of the item that the job asks for, by the asset's key.
    access
        How the bucket of `href` wants to be asked.
    bands
        The rasters of one band each that make up the scene, by the name that the job gives the band (the
        asset's key, or its band's common name), in the job's order. Empty where one raster has all
        bands; else `href`, `asset` and the like are the first one's, and the grid is the finest one's.
    """

    id: str
    href: str
    item_id: str
    collection: str | None = None
    asset: str | None = None
    datetime: datetime | None = None
    updated: str | None = None
    checksum: str | None = None
    footprint: BaseGeometry | None = None
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    shape: tuple[int, int] | None = None
    error: str | None = None
    assets: Mapping[str, SideAsset] = field(default_factory=dict, hash=False)
    access: Access = Access()
    bands: Mapping[str, SideAsset] = field(default_factory=dict, hash=False)

    @property
    def source_version(self) -> str:
        """Hash of what tells one version of this raster's data from another (16 hex digits).

        Signing the same URL anew does not change it.
        """
        parts = [stable_href(self.href), self.asset, self.updated, self.checksum]
        # Bands keep the order in which they are read.
        for key, other in [*sorted(self.assets.items()), *self.bands.items()]:
            parts += [key, stable_href(other.href), other.updated, other.checksum]
        return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()[:16]
