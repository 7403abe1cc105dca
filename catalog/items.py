"""STAC items to scenes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from .access import asset_access
from .errors import RasterError
from .header import local_stamp, outline, read_header
from .hrefs import local_path
from .intervals import Interval, parse_time
from .itemfiles import absolute_href
from .lonlat import polygon_of
from .scene import Access, Scene, SideAsset
from .signing import plain_href, reading_access
from .spec import bbox_geometry

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from .knownheaders import KnownHeaders


def item_interval(item: dict[str, Any]) -> Interval:
    """Return when the item was taken: (instant, instant), (start, end) or (None, None)."""
    properties = item["properties"]
    single = _time(properties.get("datetime"))
    if single is not None:
        return single, single
    return _time(properties.get("start_datetime")), _time(properties.get("end_datetime"))


def item_scene(
    item: dict[str, Any],
    base: str,
    asset_key: str,
    scene_id: str,
    side_assets: Sequence[str] = (),
    bands: Mapping[str, str] = MappingProxyType({}),
    *,
    sign: str | None = None,
    known: KnownHeaders | None = None,
) -> Scene:
    """Return the scene that an item's asset is, opening the raster only if `proj:*` is incomplete.

    Parameters
    ----------
    item
        A STAC item of any version from 0.9.
    base
        The file it stands in; relative hrefs start there.
    asset_key
        From `choose_asset`; the first of `bands`, where there are any.
    scene_id
        From `SceneIds`.
    side_assets
        Keys of other assets to note, which the item has.
    bands
        From `choose_bands`. The scene's grid is then that of the finest.
    sign
        The job's ``source.sign``.
    known
        Headers that need not be read.

    Returns
    -------
    Scene
        With `error` set if one of the assets is a local file that is missing, or had to be opened and
        couldn't be.
    """
    asset = item["assets"][asset_key]
    href, access = _place(item, asset, base, sign)
    grid, error = _finest_grid(item, list(bands.values()) or [asset_key], base, sign, known)
    footprint = polygon_of(item.get("geometry"), lambda: grid.outline or _box(item))
    others = {key: _side_asset(item, key, base, sign) for key in side_assets}
    parts = {name: _side_asset(item, key, base, sign) for name, key in bands.items()}
    for key, other in (others | parts).items():
        if error is None and not _exists(other.href):
            error = f"{other.href}, the asset '{bands.get(key, key)}', does not exist"
    updated, checksum = _data_version(item, asset, href)
    start, _ = item_interval(item)
    return Scene(
        id=scene_id,
        href=href,
        item_id=item["id"],
        collection=item.get("collection"),
        asset=asset_key,
        datetime=start,
        updated=updated,
        checksum=checksum,
        footprint=footprint,
        crs=grid.crs,
        transform=grid.transform,
        shape=grid.shape,
        error=error,
        assets=others,
        access=access,
        bands=parts,
    )


class _Grid(NamedTuple):
    """Georeferencing of an asset, as `Scene` holds it."""

    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    shape: tuple[int, int] | None = None

    @property
    def pixel(self) -> float:
        """Size of a pixel, to compare by."""
        if self.transform is None:
            return math.inf
        a, b, _, d, e, _ = self.transform
        return abs(a * e - b * d)

    @property
    def outline(self) -> BaseGeometry | None:
        """In EPSG:4326, where it can be known."""
        if self.crs is None or self.transform is None or self.shape is None:
            return None
        return outline(self.shape, self.transform, self.crs)


def _finest_grid(
    item: dict[str, Any],
    keys: Sequence[str],
    base: str,
    sign: str | None,
    known: KnownHeaders | None,
) -> tuple[_Grid, str | None]:
    """The finest grid among assets, and why it isn't known."""
    grids: list[_Grid] = []
    for key in keys:
        grid, error = _asset_grid(item, item["assets"][key], base, sign, known)
        if error is not None:
            return grid, error
        grids.append(grid)
    return min(grids, key=lambda grid: grid.pixel), None


def _asset_grid(
    item: dict[str, Any],
    asset: dict[str, Any],
    base: str,
    sign: str | None,
    known: KnownHeaders | None,
) -> tuple[_Grid, str | None]:
    """The grid that the metadata tell, or else the raster's header."""
    properties = item["properties"]
    if not asset.get("href"):
        return _Grid(), f"an asset of item {item['id']} has no href"
    href, access = _place(item, asset, base, sign)
    crs = _crs(asset) or _crs(properties)
    transform = _numbers(asset, properties, "proj:transform", (6, 9))
    shape = _numbers(asset, properties, "proj:shape", (2,))
    if crs is not None and transform is not None and shape is not None:
        affine = tuple(float(number) for number in transform[:6])
        error = None if _exists(href) else f"{href} does not exist"
        return _Grid(crs, affine, (int(shape[0]), int(shape[1]))), error  # type: ignore[arg-type]
    header = None
    if known is not None and _exists(href):
        header = known.find(href, *_data_version(item, asset, href))
    if header is None:
        try:
            header = read_header(href, access=access, sign=sign)
        except RasterError as failure:
            return _Grid(), str(failure)
    # All three from one place: a grid mixed from metadata and file would be neither's.
    return _Grid(header.crs, header.transform, header.shape), None


def _side_asset(item: dict[str, Any], key: str, base: str, sign: str | None) -> SideAsset:
    asset = item["assets"][key]
    href, access = _place(item, asset, base, sign)
    return SideAsset(href, *_data_version(item, asset, href), access)


def _place(
    item: dict[str, Any], asset: dict[str, Any], base: str, sign: str | None
) -> tuple[str, Access]:
    """Where an asset is, unsigned if it is signed later, and how its bucket wants to be asked."""
    href = plain_href(absolute_href(str(asset.get("href", "")), base), sign)
    return href, reading_access(href, asset_access(item, asset, href), sign)


def _data_version(
    item: dict[str, Any], asset: dict[str, Any], href: str
) -> tuple[str | None, str | None]:
    """`updated` and checksum of an asset; the stamp of a local file that has neither."""
    updated = asset.get("updated") or item["properties"].get("updated")
    checksum = asset.get("file:checksum")
    if checksum is None and updated is None:
        checksum = local_stamp(href)
    return updated, checksum


def failed_scene(item: dict[str, Any], base: str, scene_id: str, error: str) -> Scene:
    """Return a scene for an item that can't be swept, so that it ends as a failed record."""
    return Scene(
        id=scene_id,
        href=base,
        item_id=item["id"],
        collection=item.get("collection"),
        datetime=item_interval(item)[0],
        updated=item["properties"].get("updated"),
        footprint=polygon_of(item.get("geometry"), lambda: _box(item)),
        error=error,
    )


def _crs(fields: dict[str, Any]) -> str | None:
    """Return `proj:code` and its older and longer forms as text that rasterio understands."""
    for name in ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson"):
        if fields.get(name):
            return crs_text(json.dumps(fields[name]))
    return None


@lru_cache(maxsize=256)
def crs_text(value: str) -> str | None:
    """Return a CRS, given as JSON, as text; None where it is no CRS, so that the file is asked."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    named = json.loads(value)
    try:
        crs = CRS.from_user_input(named)
    except (CRSError, TypeError):
        return None
    if isinstance(named, str):
        return named
    if isinstance(named, int):
        return f"EPSG:{named}"
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else crs.to_wkt()


def _numbers(
    asset: dict[str, Any], properties: dict[str, Any], name: str, lengths: tuple[int, ...]
) -> list[float] | None:
    value = asset.get(name) or properties.get(name)
    if not isinstance(value, list) or len(value) not in lengths:
        return None
    return value if all(isinstance(number, int | float) for number in value) else None


def _box(item: dict[str, Any]) -> BaseGeometry | None:
    """The item's bbox, of four numbers or six, as a polygon."""
    bbox = item.get("bbox")
    if not isinstance(bbox, list) or len(bbox) not in (4, 6):
        return None
    half = len(bbox) // 2
    try:
        west, south, east, north = map(float, (*bbox[:2], *bbox[half : half + 2]))
    except (TypeError, ValueError):
        return None
    return bbox_geometry((west, south, east, north)) if south < north and west != east else None


def _time(value: object) -> Any:
    try:
        return parse_time(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _exists(href: str) -> bool:
    path = local_path(href)
    return path is None or path.exists()
