"""One entrance to every kind of source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ._inorder import in_order
from .errors import SourceError
from .hrefs import is_remote, public_href, stable_href
from .ids import SceneIds
from .itemfiles import is_stac_path
from .itemsource import ItemSource
from .rasters import list_rasters, raster_scene, raster_stem
from .scene import Access, Scene
from .signing import check_signer, reading_access
from .source import Source
from .spec import BBox, SourceSpec, check_bbox, source_key


class RasterSource(Source):
    """Scenes from plain rasters."""

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self._hrefs, self._repeated, self._etags = list_rasters(spec.rasters or (), spec.sign)
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
        etag = self._etags.get(href)
        if etag is None and self.known is not None and is_remote(href):
            # Before the header, which is known already if it is that of this version.
            etag = self._stamps.of(href, reading_access(href, Access(), self.spec.sign))
        return raster_scene(href, scene_id, self.spec.sign, etag, self.known)


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
    if bbox is not None:
        spec = spec.model_copy(update={"bbox": bbox})
    if spec.rasters is None:
        opened = ItemSource(spec, side_assets, side_bands)
    elif side_assets:
        raise SourceError(f"plain rasters have no assets, such as '{side_assets[0]}'")
    else:
        opened = RasterSource(spec)
    opened.key = source_key(spec, side_assets, side_bands)
    return opened


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
