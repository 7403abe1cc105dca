"""What STAC says about reaching an asset: the storage and alternate-assets extensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .hrefs import is_s3
from .itemassets import NoAssetError
from .scene import Access

_REFS, _SCHEMES = "storage:refs", "storage:schemes"
_REGION, _PAYS = "storage:region", "storage:requester_pays"


def asset_access(item: dict[str, Any], asset: dict[str, Any], href: str) -> Access:
    """Return how an asset's bucket wants to be asked, by either version of the storage extension.

    Version 2 has schemes on the item, to which assets refer; version 1 has fields on the asset, or on
    the item for all of its assets. Hrefs that are in no S3 bucket have no use for either.
    """
    if not is_s3(href):
        return Access()
    properties = item["properties"]
    schemes = properties.get(_SCHEMES) or item.get(_SCHEMES)
    refs = asset.get(_REFS)
    if isinstance(schemes, dict) and isinstance(refs, list):
        named = [schemes[ref] for ref in refs if isinstance(schemes.get(ref), dict)]
        regions = [scheme["region"] for scheme in named if scheme.get("region")]
        pays = any(scheme.get("requester_pays") is True for scheme in named)
        return Access(str(regions[0]) if regions else None, pays)
    region = asset.get(_REGION) or properties.get(_REGION)
    pays = asset.get(_PAYS, properties.get(_PAYS)) is True
    return Access(str(region) if region else None, pays)


def with_alternates(
    item: dict[str, Any], keys: Iterable[str], wanted: str | None, source: str
) -> dict[str, Any]:
    """Return the item with the alternate hrefs of some assets in place of their main ones.

    Parameters
    ----------
    item
        Has all these assets; it is left as it is.
    keys
        Of the assets that are to be read.
    wanted
        Name of the alternate; None changes nothing.
    source
        The file's name, for messages.

    Raises
    ------
    NoAssetError
        If one of the assets has no such alternate.
    """
    if wanted is None:
        return item
    assets = dict(item["assets"])
    for key in keys:
        asset = assets[key]
        others = asset.get("alternate") or {}
        other = others.get(wanted)
        if not isinstance(other, dict) or not other.get("href"):
            names = ", ".join(others) or "none"
            raise NoAssetError(
                f"{source}: asset '{key}' of item {item['id']} has no alternate '{wanted}', it has "
                f"{names}: set source.alternate to one of them, or leave it out"
            )
        # The bucket is another one, so that what is said of the main one's doesn't hold.
        kept = {name: value for name, value in asset.items() if not name.startswith("storage:")}
        assets[key] = {**kept, **other}
    return {**item, "assets": assets}
