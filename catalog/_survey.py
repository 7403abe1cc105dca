"""A source's present scenes, each held against its record in an output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from ._scratch import Scratch
from .hrefs import stable_href
from .ids import safe_id, short_hash

if TYPE_CHECKING:
    from .ledger import Ledger, Standing
    from .scene import Scene

Kind = Literal["new", "changed", "unchanged"]
Gone = Literal["removed", "renamed"]


class Survey:
    """One pass over a source's present scenes; afterwards, what has a record and isn't among them.

    A context manager. What it remembers lies on disk.

    Parameters
    ----------
    scenes
        All that there are now.
    ledger
        Of the output.
    fingerprint
        Of the job that they are for; records of another one are out of date.

    Attributes
    ----------
    new, changed, unchanged
        How many scenes there were of each kind so far.
    """

    def __init__(self, scenes: Iterable[Scene], ledger: Ledger, fingerprint: str | None) -> None:
        self._scenes = scenes
        self._ledger = ledger
        self._fingerprint = fingerprint
        self.new = self.changed = self.unchanged = 0
        self._seen = Scratch(
            "CREATE TABLE scenes (id TEXT PRIMARY KEY, collection TEXT, item_id TEXT) WITHOUT ROWID",
            # Of scenes without a collection: where a raster lies, a record does not tell exactly.
            "CREATE TABLE other_ids (id TEXT PRIMARY KEY, item_id TEXT) WITHOUT ROWID",
        )

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *_: object) -> None:
        self._seen.close()

    def __iter__(self) -> Iterator[tuple[Scene, Kind]]:
        for scene in self._scenes:
            first = self._seen.execute(
                "INSERT OR IGNORE INTO scenes VALUES (?, ?, ?)",
                (scene.id, scene.collection, scene.item_id),
            )
            if first.rowcount != 1:
                continue
            if scene.collection is None:
                self._seen.fill(
                    "INSERT OR IGNORE INTO other_ids VALUES (?, ?)",
                    [(name, scene.item_id) for name in _other_ids(scene)],
                )
            kind = self._kind(scene)
            if kind == "new":
                self.new += 1
            elif kind == "changed":
                self.changed += 1
            else:
                self.unchanged += 1
            yield scene, kind

    def scenes(self) -> Iterator[Scene]:
        """Yield the scenes alone."""
        return (scene for scene, _ in self)

    def gone(self) -> Iterator[tuple[Standing, Gone]]:
        """Yield what has a record but is no scene now; once all scenes have been seen.

        ``removed`` is what the source no longer has. ``renamed`` is what it has under another scene
        id, because namesakes in other collections came or went.
        """
        for standing in self._ledger:
            if self._seen.first("SELECT 1 FROM scenes WHERE id = ?", (standing.scene_id,)):
                continue
            yield standing, "renamed" if self._is_renamed(standing) else "removed"

    def _is_renamed(self, standing: Standing) -> bool:
        if standing.collection is None:
            found = self._seen.first(
                "SELECT 1 FROM other_ids WHERE id = ? AND item_id = ?",
                (standing.scene_id, standing.item_id),
            )
            return found is not None
        whose = (standing.collection, standing.item_id)
        query = "SELECT 1 FROM scenes WHERE id = ? AND collection = ? AND item_id = ?"
        names = _ids_of_item(*whose)
        return any(self._seen.first(query, (name, *whose)) for name in names)

    def _kind(self, scene: Scene) -> Kind:
        standing = self._ledger.get(scene.id)
        if standing is None:
            known = any(self._is_of(scene, name) for name in _other_ids(scene))
            return "changed" if known else "new"
        same = standing.source_version == scene.source_version
        if same and self._fingerprint in (None, standing.fingerprint):
            return "unchanged"
        return "changed"

    def _is_of(self, scene: Scene, other_id: str) -> bool:
        """Whether the record under another id is this scene's, from when it was named so."""
        other = self._ledger.get(other_id)
        if other is None or (other.collection, other.item_id) != (scene.collection, scene.item_id):
            return False
        # Plain rasters that share a name have no collection to tell them apart.
        return scene.collection is not None or other.source_version == scene.source_version


def _other_ids(scene: Scene) -> list[str]:
    """Ids that `SceneIds` gives the same entry of a source when its namesakes come or go."""
    names = _ids_of_item(scene.collection, scene.item_id)
    if scene.collection is None:
        # Plain rasters are told from their namesakes by where they lie.
        names.append(f"{names[0]}-{short_hash(stable_href(scene.href))}")
    return [names[0]] if scene.id != names[0] else names[1:]


def _ids_of_item(collection: str | None, item_id: str) -> list[str]:
    plain, suffix = safe_id(item_id), short_hash(f"{collection}\x1f{item_id}")
    return [plain, f"{plain}-{suffix}"]
