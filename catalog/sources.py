"""One entrance to every kind of source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ._entrykeys import EntryKeys, Seen
from ._inorder import in_order
from .access import with_alternates
from .area import area_of_interest, overlap
from .cql import ItemFilter
from .errors import SourceError
from .hrefs import is_remote, public_href, stable_href
from .ids import SceneIds
from .intervals import Interval, overlaps, parse_interval
from .itemassets import NoAssetError, check_side_assets, choose_asset, choose_bands
from .itemfiles import Item, ItemFile, is_stac_path
from .items import failed_scene, item_interval, item_scene
from .query import Query
from .rasters import list_rasters, raster_scene, raster_stem
from .scene import Scene
from .signing import check_signer
from .spec import BBox, SourceSpec, check_bbox
from .stamps import stamped

if TYPE_CHECKING:
    from .api import StacApi


class Source:
    """A stream of scenes that can be iterated again and again, always in the same order.

    Attributes
    ----------
    spec
        What was asked for.
    area
        Area of interest in EPSG:4326, or None where there is no limit.
    total
        Distinct entries before any filter; known once iteration has begun (at once for rasters). Of
        an API, those that its search gave.
    duplicates, outside_aoi, outside_datetime, other_collection, filtered_out
        How many entries were left out, and why; of the latest iteration. Scenes whose footprint or
        time is not known are never left out. What an API's search leaves out is not known.
    """

    def __init__(self, spec: SourceSpec, bbox: BBox | None = None) -> None:
        self.spec = spec
        self.area = area_of_interest(bbox if bbox is not None else spec.bbox, spec.intersects)
        self._interval = parse_interval(spec.datetime) if spec.datetime else None
        self.total: int | None = None
        self._reset()

    def __iter__(self) -> Iterator[Scene]:
        self._reset()
        yield from stamped(self._wanted(), self.spec.sign)

    def _wanted(self) -> Iterator[Scene]:
        given = 0
        for scene in self._scenes():
            if self._inside(scene):
                yield scene
                given += 1
                if given == self.spec.limit:
                    return
            else:
                self.outside_aoi += 1

    def describe(self) -> str:
        """Return in a few words what the source is, for people; without secrets."""
        raise NotImplementedError

    def _scenes(self) -> Iterator[Scene]:
        raise NotImplementedError

    def _inside(self, scene: Scene) -> bool:
        return self.area is None or scene.footprint is None or overlap(self.area, scene.footprint)

    def _reset(self) -> None:
        self.duplicates = self.outside_aoi = self.outside_datetime = self.other_collection = 0
        self.filtered_out = 0

    def _in_time(self, taken: Interval) -> bool:
        if self._interval is None or taken == (None, None) or overlaps(self._interval, taken):
            return True
        self.outside_datetime += 1
        return False


class RasterSource(Source):
    """Scenes from plain rasters."""

    def __init__(self, spec: SourceSpec, bbox: BBox | None = None) -> None:
        super().__init__(spec, bbox)
        self._hrefs, self._repeated, self._etags = list_rasters(spec.rasters or ())
        self._ids = SceneIds(raster_stem(href) for href in self._hrefs)
        self.total = len(self._hrefs)

    def describe(self) -> str:
        if self.total == 1:
            return public_href(self._hrefs[0])
        return f"{self.total} rasters"

    def _scenes(self) -> Iterator[Scene]:
        self.duplicates = self._repeated
        for scene in in_order(self._scene, self._hrefs, slow=is_remote):
            if self._in_time((scene.datetime, scene.datetime)):
                yield scene

    def _scene(self, href: str) -> Scene:
        scene_id = self._ids(raster_stem(href), stable_href(href))
        return raster_scene(href, scene_id, self.spec.sign, self._etags.get(href))


class ItemSource(Source):
    """Scenes from a file of STAC items, a static catalog, or a STAC API."""

    def __init__(
        self,
        spec: SourceSpec,
        bbox: BBox | None = None,
        side_assets: Sequence[str] = (),
        side_bands: Sequence[str] = (),
    ) -> None:
        super().__init__(spec, bbox)
        self._side_assets = tuple(side_assets)
        self._side_bands = tuple(side_bands)
        self._filter = None if spec.filter is None else ItemFilter(spec.filter)
        self.query = Query(
            spec.collections, self.area, self._interval, spec.filter, spec.sortby, spec.limit
        )
        self._file = ItemFile(spec.stac or "", self.query)
        self._keys: EntryKeys | None = None

    def describe(self) -> str:
        return f"STAC items of {self._file.name}"

    def _scenes(self) -> Iterator[Scene]:
        if self._keys is None:
            # A first pass over the ids alone, so that equal ones are told apart before any is given
            # out.
            self._file.freeze()
            self._keys = EntryKeys(self._file.keys())
            self.total = self._keys.count
            if self.spec.sortby and not self._file.searched:
                raise SourceError(
                    f"source.sortby goes with a STAC API; {self._file.name} keeps its own order"
                )
        keys = self._keys
        yield from self._chosen(self._file.items(), keys.ids, keys.seen(), swept=False)

    def api(self) -> StacApi | None:
        """The STAC API behind this source, which is asked who it is; None if it is none."""
        return self._file.api()

    def among(self, entries: Iterable[tuple[Item, str]], ids: SceneIds) -> Iterator[Scene]:
        """Yield the scenes of some of the items, which a search of the caller's own gave.

        Parameters
        ----------
        entries
            Items, each with the href that its own are relative to.
        ids
            Of all items of the source.
        """
        checked = ((self._file.checked(item), base) for item, base in entries)
        chosen = self._chosen(checked, ids, Seen(), swept=True)
        yield from stamped(filter(self._inside, chosen), self.spec.sign)

    def wants(self, item: Item) -> bool:
        """Whether an item passes the spec's filters, as far as its fields tell; counts the others."""
        if self.spec.collections and item.get("collection") not in self.spec.collections:
            self.other_collection += 1
            return False
        if not self._in_time(item_interval(item)):
            return False
        if self._filter and not self._file.searched and not self._filter.matches(item):
            self.filtered_out += 1
            return False
        return True

    def _chosen(
        self, entries: Iterable[tuple[Item, str]], ids: SceneIds, seen: Seen, *, swept: bool
    ) -> Iterator[Scene]:
        for item, base in entries:
            key = (item.get("collection"), item["id"])
            if seen.again(key):
                self.duplicates += 1
                continue
            if not self.wants(item):
                continue
            scene_id = ids(item["id"], "\x1f".join(map(str, key)))
            try:
                asset, bands = self._choose(item)
                keys = (asset, *bands.values(), *self._side_assets)
                item = with_alternates(item, keys, self.spec.alternate, self._file.name)  # noqa: PLW2901
            except NoAssetError as error:
                if not swept:
                    raise  # the very first item: the job is wrong rather than the item
                yield failed_scene(item, base, scene_id, str(error))
                continue
            swept = True
            yield item_scene(
                item, base, asset, scene_id, self._side_assets, bands, sign=self.spec.sign
            )

    def _choose(self, item: dict[str, Any]) -> tuple[str, dict[str, str]]:
        """The asset to sweep, and the asset of each band where it is one of several."""
        name = self._file.name
        check_side_assets(item, self._side_assets, name)
        bands = {}
        if self.spec.asset is None:
            bands = choose_bands(item, self.spec.bands, self._side_bands, name)
        if bands:
            return next(iter(bands.values())), bands
        return choose_asset(item, self.spec.asset, name), {}


def open_source(
    source: SourceSpec | Mapping[str, Any] | str | Path | Sequence[str | Path],
    *,
    bbox: BBox | None = None,
    side_assets: Sequence[str] = (),
    side_bands: Sequence[str] = (),
) -> Source:
    """Open a source of scenes.

    Parameters
    ----------
    source
        A `SourceSpec` or its fields; or a path or URL, taken as STAC if it ends in ``.json``,
        ``.geojson``, ``.parquet`` or ``.ndjson`` and as a raster or folder of rasters otherwise; or
        a list of rasters and folders. STAC APIs are given as ``{"stac": url}``.
    bbox
        West, south, east, north in degrees; takes the place of the spec's own.
    side_assets
        Keys of assets that each item must have besides the one that is swept; they come as
        `Scene.assets`.
    side_bands
        Names of bands that crop models want besides the spec's own. They matter where bands are assets
        of one band each: all of them come as `Scene.bands`.

    Returns
    -------
    Source
        Iterate it for `Scene`s.

    Raises
    ------
    SourceError
        If the source is not understood, here or on the first steps of an iteration. A single raster
        that can't be read is no such case: it comes as a scene with `error` set.
    """
    spec = _spec(source)
    if bbox is not None:
        try:
            check_bbox(bbox)
        except ValueError as error:
            raise SourceError(str(error)) from None
    check_signer(spec.sign)
    if spec.rasters is None:
        return ItemSource(spec, bbox, side_assets, side_bands)
    if side_assets:
        raise SourceError(f"plain rasters have no assets, such as '{side_assets[0]}'")
    return RasterSource(spec, bbox)


def _spec(source: object) -> SourceSpec:
    if isinstance(source, SourceSpec):
        return source
    fields: dict[str, Any]
    if isinstance(source, Mapping):
        fields = dict(source)
    elif isinstance(source, str | Path):
        text = str(source)
        fields = {"stac": text} if is_stac_path(text) else {"rasters": [text]}
    elif isinstance(source, Sequence):
        names = [str(name) for name in source]
        stac = [name for name in names if is_stac_path(name)]
        if stac and len(names) > 1:
            raise SourceError(f"{public_href(stac[0])} is a STAC file in a list: give it alone")
        fields = {"stac": stac[0]} if stac else {"rasters": names}
    else:
        raise SourceError(f"{source!r} is no source: give a path, a list of paths or a SourceSpec")
    try:
        return SourceSpec(**fields)
    except ValidationError as error:
        raise SourceError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in first["loc"])
    return f"source.{where}: {message}" if where and not message.startswith("source") else message
