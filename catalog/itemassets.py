"""Which of an item's assets are meant: one raster, or one for each band (Sentinel-2, Landsat)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .errors import SourceError
from .itemfiles import href_suffix
from .rasters import RASTER_SUFFIXES

_IMAGE_TYPES = ("image/tiff", "image/jp2", "image/png", "image/jpeg", "image/vnd.stac.geotiff")
_SIDE_ROLES = frozenset({"thumbnail", "overview", "metadata", "visual-thumbnail"})
_COLOURS = ("red", "green", "blue")


class NoAssetError(SourceError):
    """The item has no asset to sweep, or too many to choose from."""


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
        If the item hasn't got such an asset, or several.
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
    rasters = _rasters(item)
    data = [key for key in rasters if "data" in (assets[key].get("roles") or ())]
    found = data or rasters
    if len(found) > 1:
        raise NoAssetError(
            f"{source}: item {item['id']} has several rasters ({', '.join(found)}): "
            f"set source.asset to the one to sweep{_band_remedy(item, found)}"
        )
    if not found:
        raise NoAssetError(
            f"{source}: item {item['id']} has no raster among its assets ({keys}): "
            "set source.asset if one of them is"
        )
    return found[0]


def check_side_assets(item: dict[str, Any], wanted: Sequence[str], source: str) -> None:
    """Raise NoAssetError unless the item has all assets that crop models want."""
    for key in wanted:
        if key not in item["assets"]:
            keys = ", ".join(item["assets"]) or "none"
            raise NoAssetError(
                f"{source}: item {item['id']} has no asset '{key}', it has {keys}: "
                "set crop_models.asset to one of them"
            )


def choose_bands(
    item: dict[str, Any],
    bands: Sequence[int | str] | None,
    side_bands: Sequence[str],
    source: str,
) -> dict[str, str]:
    """Find the asset that each band is.

    A name is an asset's key; failing that, a band's name or common name (`eo:bands`, or STAC 1.1's
    `bands`), if it is that of one asset of a single band.

    Parameters
    ----------
    item
        A STAC item.
    bands
        The job's ``source.bands``.
    side_bands
        Names of the bands that crop models want besides.
    source
        The file's name, for messages.

    Returns
    -------
    dict
        Asset's key by the band's name, in the order of `bands`, then `side_bands`; empty if no band of
        `bands` is an asset, so that they are bands of one raster.

    Raises
    ------
    NoAssetError
        If only some of the bands are assets, or a name fits several.
    """
    names = [band for band in bands or () if isinstance(band, str)]
    if not names or len(names) != len(bands or ()):
        return {}
    rasters = _rasters(item)
    found = {name: _asset_of(item, name, rasters, source) for name in names}
    if not any(found.values()):
        return {}
    found |= {n: _asset_of(item, n, rasters, source) for n in side_bands if n not in found}
    for name, key in found.items():
        if key is None:
            raise NoAssetError(
                f"{source}: item {item['id']} has no asset of the one band '{name}', it has "
                f"{', '.join(item['assets'])}: name others in "
                f"{'source' if name in names else 'crop_models'}.bands"
            )
    return {name: key for name, key in found.items() if key is not None}


def _rasters(item: dict[str, Any]) -> list[str]:
    return [key for key, asset in item["assets"].items() if _is_raster(asset)]


def _is_raster(asset: dict[str, Any]) -> bool:
    roles = asset.get("roles") or ()
    if _SIDE_ROLES.intersection(roles):
        return False
    media = asset.get("type")
    if media:
        return str(media).split(";")[0].strip().lower() in _IMAGE_TYPES
    return href_suffix(str(asset.get("href", ""))) in RASTER_SUFFIXES


def _band_remedy(item: dict[str, Any], rasters: Sequence[str]) -> str:
    """What to say of ``source.bands`` where an item has several rasters; empty if nothing."""
    named = [_single_band(item, key) for key in rasters]
    singles = [names for names in named if names]
    if all(
        colour in rasters or sum(colour in names for names in singles) == 1 for colour in _COLOURS
    ):
        return f", or source.bands to assets of one band each: [{', '.join(_COLOURS)}]"
    if len(singles) > 2:
        return ", or source.bands to three assets of one band each"
    return ""


def _asset_of(item: dict[str, Any], name: str, rasters: Sequence[str], source: str) -> str | None:
    if name in item["assets"]:
        return name
    fitting = [key for key in rasters if name in _single_band(item, key)]
    if len(fitting) > 1:
        raise NoAssetError(
            f"{source}: item {item['id']} has the band '{name}' in several assets "
            f"({', '.join(fitting)}): name one of them in its place"
        )
    return fitting[0] if fitting else None


def _single_band(item: dict[str, Any], key: str) -> set[str]:
    """Names of an asset's only band; none if it has several, or doesn't say."""
    asset = item["assets"][key]
    bands = asset.get("bands") or asset.get("eo:bands")
    if not isinstance(bands, list) or len(bands) != 1:
        return set()
    return set(_names(item, asset, bands[0]))


def _names(item: dict[str, Any], asset: dict[str, Any], band: object) -> Iterator[str]:
    if isinstance(band, int):
        # Before STAC 1.0, assets pointed into a list of the item's.
        listed = item["properties"].get("eo:bands")
        band = listed[band] if isinstance(listed, list) and 0 <= band < len(listed) else None
    if isinstance(band, dict):
        for field in ("name", "common_name", "eo:common_name"):
            # What all bands of an asset share may stand in the asset itself.
            value = band.get(field) or (asset.get(field) if ":" in field else None)
            if isinstance(value, str):
                yield value
