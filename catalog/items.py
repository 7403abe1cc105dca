"""STAC items to scenes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .errors import RasterError, SourceError
from .header import Header, local_stamp, outline, read_header
from .hrefs import is_remote, local_path
from .intervals import Interval, parse_time
from .itemfiles import absolute_href, href_suffix
from .rasters import RASTER_SUFFIXES
from .scene import Scene, SideAsset

_IMAGE_TYPES = ("image/tiff", "image/jp2", "image/png", "image/jpeg", "image/vnd.stac.geotiff")
_SIDE_ROLES = frozenset({"thumbnail", "overview", "metadata", "visual-thumbnail"})


class NoAssetError(SourceError):
    """The item has no asset to sweep."""


def choose_asset(item: dict[str, Any], wanted: str | None, source: str) -> str:
    """Return the key of the asset to sweep.

    Parameters
    ----------
    item
        A STAC item.
    wanted
        The job's ``source.asset``. Without it the item must have just one raster: one asset with
        the role ``data`` that looks like a raster, or else one that looks like a raster at all.
    source
        The file's name, for messages.

    Raises
    ------
    NoAssetError
        If the item hasn't got such an asset.
    SourceError
        If there are several.
    """
    assets: dict[str, Any] = item["assets"]
    keys = ", ".join(assets) or "none"
    if wanted is not None:
        if wanted not in assets:
            raise NoAssetError(
                f"{source}: item {item['id']} has no asset '{wanted}', it has {keys}: "
                "set source.asset to one of them"
            )
        return wanted
    rasters = [key for key, asset in assets.items() if _is_raster(asset)]
    data = [key for key in rasters if "data" in (assets[key].get("roles") or ())]
    found = data or rasters
    if len(found) > 1:
        raise SourceError(
            f"{source}: item {item['id']} has several rasters ({', '.join(found)}): "
            "set source.asset to the one to sweep"
        )
    if not found:
        raise NoAssetError(
            f"{source}: item {item['id']} has no raster among its assets ({keys}): "
            "set source.asset if one of them is"
        )
    return found[0]


def item_interval(item: dict[str, Any]) -> Interval:
    """Return when the item was taken: (instant, instant), (start, end) or (None, None)."""
    properties = item["properties"]
    single = _time(properties.get("datetime"))
    if single is not None:
        return single, single
    return _time(properties.get("start_datetime")), _time(properties.get("end_datetime"))


def check_side_assets(item: dict[str, Any], wanted: Sequence[str], source: str) -> None:
    """Raise NoAssetError unless the item has all assets that crop models want."""
    for key in wanted:
        if key not in item["assets"]:
            keys = ", ".join(item["assets"]) or "none"
            raise NoAssetError(
                f"{source}: item {item['id']} has no asset '{key}', it has {keys}: "
                "set crop_models.asset to one of them"
            )


def item_scene(
    item: dict[str, Any],
    base: str,
    asset_key: str,
    scene_id: str,
    side_assets: Sequence[str] = (),
) -> Scene:
    """Return the scene that an item's asset is, opening the raster only if `proj:*` is incomplete.

    Parameters
    ----------
    item
        A STAC item of any version from 0.9.
    base
        The file it stands in; relative hrefs start there.
    asset_key
        From `choose_asset`.
    scene_id
        From `SceneIds`.
    side_assets
        Keys of other assets to note, which the item has.

    Returns
    -------
    Scene
        With `error` set if one of the assets is a local file that is missing, or had to be opened and
        couldn't be.
    """
    asset = item["assets"][asset_key]
    properties = item["properties"]
    href = absolute_href(str(asset.get("href", "")), base)
    crs = _crs(asset) or _crs(properties)
    transform = _numbers(asset, properties, "proj:transform", (6, 9))
    shape = _numbers(asset, properties, "proj:shape", (2,))
    error = None
    if crs is None or transform is None or shape is None:
        header, error = _header(href)
        if header is not None:
            # All three from one place: a grid mixed from metadata and file would be neither's.
            crs, transform, shape = header.crs, header.transform, header.shape
    elif not is_remote(href) and not _exists(href):
        error = f"{href} does not exist"
    grid = None if transform is None else tuple(float(number) for number in transform[:6])
    size = None if shape is None else (int(shape[0]), int(shape[1]))
    footprint = _footprint(item.get("geometry"))
    if footprint is None and grid and size and crs:
        footprint = outline(size, grid, crs)  # type: ignore[arg-type]
    others = {key: _side_asset(item, key, base) for key in side_assets}
    for key, other in others.items():
        if error is None and not _exists(other.href):
            error = f"{other.href}, the asset '{key}', does not exist"
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
        crs=crs,
        transform=grid,  # type: ignore[arg-type]
        shape=size,
        error=error,
        assets=others,
    )


def _side_asset(item: dict[str, Any], key: str, base: str) -> SideAsset:
    asset = item["assets"][key]
    href = absolute_href(str(asset.get("href", "")), base)
    return SideAsset(href, *_data_version(item, asset, href))


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
        footprint=_footprint(item.get("geometry")),
        error=error,
    )


def _is_raster(asset: dict[str, Any]) -> bool:
    roles = asset.get("roles") or ()
    if _SIDE_ROLES.intersection(roles):
        return False
    media = asset.get("type")
    if media:
        return str(media).split(";")[0].strip().lower() in _IMAGE_TYPES
    return href_suffix(str(asset.get("href", ""))) in RASTER_SUFFIXES


def _header(href: str) -> tuple[Header | None, str | None]:
    try:
        return read_header(href), None
    except RasterError as error:
        return None, str(error)


def _crs(fields: dict[str, Any]) -> str | None:
    """Return `proj:code` and its older and longer forms as text that rasterio understands."""
    if fields.get("proj:code"):
        return str(fields["proj:code"])
    if fields.get("proj:epsg"):
        return f"EPSG:{int(fields['proj:epsg'])}"
    if fields.get("proj:wkt2"):
        return str(fields["proj:wkt2"])
    if fields.get("proj:projjson"):
        from pyproj import CRS

        crs = CRS.from_json(json.dumps(fields["proj:projjson"]))
        authority = crs.to_authority(min_confidence=100)
        return ":".join(authority) if authority else crs.to_wkt()
    return None


def _numbers(
    asset: dict[str, Any], properties: dict[str, Any], name: str, lengths: tuple[int, ...]
) -> list[float] | None:
    value = asset.get(name) or properties.get(name)
    return value if isinstance(value, list) and len(value) in lengths else None


def _footprint(geometry: dict[str, Any] | None) -> Any:
    import shapely
    from shapely.geometry import shape

    if not geometry:
        return None
    try:
        footprint = shapely.force_2d(shape(geometry))
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if footprint.is_empty:
        return None
    return footprint if footprint.is_valid else shapely.make_valid(footprint)


def _time(value: object) -> Any:
    try:
        return parse_time(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _exists(href: str) -> bool:
    path = local_path(href)
    return path is None or path.exists()
