"""Older records that stay beside the one that took their place, with STAC's version extension.

``items/<scene>.json`` is always the latest version; ``versions/<scene>/<version>.json`` are the ones
before, whose data files stay. Each is linked to the next, to the one before and to the latest.
Readers of results follow ``items/`` and don't see them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .records import ITEMS, VERSIONS, Records, is_own_file, version_key
from .storage import MissingKeyError, Storage

if TYPE_CHECKING:
    import pystac

_UP = "../"


def keep_version(storage: Storage, scene_id: str) -> None:
    """Keep a scene's record, as it stands in ``items/``, before another takes its place.

    Nothing happens if there is none. Doing it twice does no harm.
    """
    item = Records(storage).read_item(scene_id)
    if item is None:
        return
    version = str(item["properties"]["geosweep:version"])
    _put(storage, version_key(scene_id, version), _as_older(item, scene_id, version))
    before = predecessor_of(item)
    if before is not None and before != version:
        _point(storage, version_key(scene_id, before), f"{version}.json")


def kept_items(
    storage: Storage, scene_id: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and item of every version that is kept, of one scene or of all."""
    prefix = VERSIONS if scene_id is None else f"{VERSIONS}{scene_id}/"
    for key in list(storage.list(prefix, ".json")):
        item = _read(storage, key)
        if item is not None:
            yield key, item


def kept_data(item: dict[str, Any]) -> str | None:
    """Return the key of the data file that a kept item points to, or None for one without."""
    asset = (item.get("assets") or {}).get("data")
    return None if asset is None else str(asset["href"]).removeprefix(_UP * 2)


def is_kept(storage: Storage, scene_id: str, version: str) -> bool:
    """Whether a version of a scene is kept, so that its data file has to stay."""
    return storage.exists(version_key(scene_id, version))


def drop_versions(storage: Storage, scene_id: str) -> None:
    """Remove all kept versions of a scene, and the data files that are theirs alone."""
    for key, item in kept_items(storage, scene_id):
        storage.delete(key)
        data = kept_data(item)
        version = key.rpartition("/")[2].removesuffix(".json")
        if data is not None and is_own_file(data, scene_id, version):
            storage.delete(data)


def link_predecessor(item: pystac.Item, scene_id: str, version: str, predecessor: str) -> None:
    """Give a scene's latest item its version, and the link to the one before."""
    from pystac.extensions.version import VersionExtension, VersionRelType

    VersionExtension.ext(item, add_if_missing=True).version = version
    href = f"{_UP}{version_key(scene_id, predecessor)}"
    item.add_link(_link(VersionRelType.PREDECESSOR, href))


def predecessor_of(item: dict[str, Any]) -> str | None:
    """Return the version that an item names as the one before its own."""
    for link in item.get("links") or []:
        if link.get("rel") == "predecessor-version":
            return str(link["href"]).rpartition("/")[2].removesuffix(".json")
    return None


def _as_older(item: dict[str, Any], scene_id: str, version: str) -> dict[str, Any]:
    """Return a latest item as one that has been replaced, a folder further down."""
    import pystac
    from pystac.extensions.version import VersionExtension, VersionRelType

    before = predecessor_of(item)
    older = pystac.Item.from_dict(item, preserve_dict=True)
    # Ids are unique within a collection, and the latest version has the scene's.
    older.id = f"{scene_id}-{version}"
    extension = VersionExtension.ext(older, add_if_missing=True)
    extension.version, extension.deprecated = version, True
    kept = [link for link in older.links if link.rel not in list(VersionRelType)]
    older.clear_links()
    for link in kept:
        href = str(link.get_href(transform_href=False))
        link.target = f"{_UP}{href}" if href.startswith(_UP) else href
        older.add_link(link)
    for asset in older.assets.values():
        if asset.href.startswith(_UP):
            asset.href = f"{_UP}{asset.href}"
    latest = f"{_UP * 2}{ITEMS}{scene_id}.json"
    older.add_link(_link(VersionRelType.LATEST, latest))
    older.add_link(_link(VersionRelType.SUCCESSOR, latest))
    if before is not None and before != version:
        older.add_link(_link(VersionRelType.PREDECESSOR, f"{before}.json"))
    return older.to_dict(include_self_link=False, transform_hrefs=False)


def _point(storage: Storage, key: str, successor: str) -> None:
    """Let a kept version name its successor, now that this is no longer the latest one."""
    item = _read(storage, key)
    if item is None:
        return
    for link in item.get("links", []):
        if link.get("rel") == "successor-version":
            link["href"] = successor
    _put(storage, key, item)


def _link(rel: str, href: str) -> pystac.Link:
    import pystac

    return pystac.Link(rel, href, pystac.MediaType.GEOJSON)


def _read(storage: Storage, key: str) -> dict[str, Any] | None:
    try:
        return json.loads(storage.get(key))
    except MissingKeyError:
        return None


def _put(storage: Storage, key: str, item: dict[str, Any]) -> None:
    data = json.dumps(item, indent=1, allow_nan=False, ensure_ascii=False).encode()
    storage.put(key, data)
