"""Scenes from STAC items, wherever these come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._entrykeys import EntryKeys, Seen
from .access import with_alternates
from .cql import ItemFilter
from .errors import SourceError
from .ids import SceneIds
from .itemassets import NoAssetError, check_side_assets, choose_asset, choose_bands
from .itemcolumns import CompleteRow
from .itemfiles import Item, ItemFile
from .items import failed_scene, item_interval, item_scene
from .query import Query
from .scene import Scene
from .source import Source
from .spec import SourceSpec

if TYPE_CHECKING:
    from .api import StacApi


class ItemSource(Source):
    """Scenes from a file of STAC items, a static catalog, or a STAC API."""

    def __init__(
        self,
        spec: SourceSpec,
        side_assets: Sequence[str] = (),
        side_bands: Sequence[str] = (),
    ) -> None:
        super().__init__(spec)
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
        rows = self._file.rows(self._plain_asset)
        yield from self._chosen(rows, keys.ids, keys.seen(), swept=False)

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
        yield from self._stamped(filter(self._inside, chosen))

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

    @property
    def _plain_asset(self) -> str | None:
        """The asset that scenes are made of, if nothing else of an item matters."""
        spec = self.spec
        more = (self._side_assets, self._filter, spec.alternate, spec.sign)
        return None if any(more) else spec.asset

    def _chosen(
        self,
        entries: Iterable[tuple[Item | CompleteRow, str]],
        ids: SceneIds,
        seen: Seen,
        *,
        swept: bool,
    ) -> Iterator[Scene]:
        for item, base in entries:
            if isinstance(item, CompleteRow):
                scene = self._scene_of_row(item, ids, seen)
                if scene is not None:
                    swept = True
                    yield scene
                continue
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
                item,
                base,
                asset,
                scene_id,
                self._side_assets,
                bands,
                sign=self.spec.sign,
                known=self.known,
            )

    def _scene_of_row(self, row: CompleteRow, ids: SceneIds, seen: Seen) -> Scene | None:
        key = (row.collection, row.item_id)
        if seen.again(key):
            self.duplicates += 1
            return None
        if self.spec.collections and row.collection not in self.spec.collections:
            self.other_collection += 1
            return None
        if not self._in_time((row.datetime, row.datetime)):
            return None
        assert self.spec.asset is not None
        return row.scene(ids(row.item_id, "\x1f".join(map(str, key))), self.spec.asset)

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
