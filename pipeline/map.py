"""One self-contained page of an output: imagery, scenes and detections, without any network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import math
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from ..catalog.errors import OutputError, RasterError
from ._imagery import Preview
from ._palette import PALETTE
from ._view import SceneView, View, read_view

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_SCRIPTS = ("map-data.js", "map-canvas.js", "map-ui.js")
_IMAGERY_BUDGET = 24_000_000
_SMALLEST_PREVIEW = 160
_FINEST_STEP = 0.001


def write_map(
    output: str | Path,
    path: str | Path | None = None,
    *,
    preview_px: int = 1600,
    max_detections: int = 200_000,
) -> Path:
    """Write an interactive page of an output as one HTML file that needs nothing else.

    Parameters
    ----------
    output
        Folder or URL that `run` wrote; its items decide what is shown.
    path
        The file; None for ``map.html`` in an output on disk, and in the working directory otherwise.
    preview_px
        Longest side of a scene's picture. With many scenes pictures are smaller, so that the page
        keeps under about 24 million pixels.
    max_detections
        Beyond it, those with the highest scores are drawn, and the page says so.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    OutputError
        If `output` is no output of geosweep, or the page can't be written.
    """
    view = read_view(output, max_detections=max_detections)
    if path is None:
        path = "map.html" if "://" in str(output) else Path(output) / "map.html"
    path = Path(path)
    scenes = _scenes_with_imagery(view, preview_px)
    text = _render(view, scenes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The page {path} can't be written: {error.strerror}.") from error
    return path


def _scenes_with_imagery(view: View, preview_px: int) -> list[dict[str, Any]]:
    """Describe each scene for the page, pictures included; what has none gets a note."""
    shown = [scene for scene in view.scenes if scene.status != "failed"]
    most = _IMAGERY_BUDGET // _SMALLEST_PREVIEW**2
    pictured = {scene.id for scene in sorted(shown, key=lambda s: -s.rows)[:most]}
    if len(shown) > most:
        view.notes.append(f"Imagery is shown for {most:,} of {len(shown):,} scenes.")
    side = min(preview_px, int(math.sqrt(_IMAGERY_BUDGET / max(len(pictured), 1))))
    described = []
    for scene in view.scenes:
        entry: dict[str, Any] = {
            "id": scene.id,
            "status": scene.status,
            "rows": scene.rows,
            "windows": scene.windows,
            "href": scene.href,
            "error": scene.error,
            "note": None,
            "image": None,
        }
        if scene.id in pictured:
            try:
                entry["image"] = _picture(scene, view, side)
            except RasterError as error:
                entry["note"] = f"No imagery: {error}"
        entry["outline"] = _rings(scene.outline)
        described.append(entry)
    return described


def _picture(scene: SceneView, view: View, side: int) -> dict[str, Any]:
    preview = view.preview(scene, side)
    left, bottom, right, top = preview.bounds
    dx, dy = scene.shift
    bounds = (left + dx, bottom + dy, right + dx, top + dy)
    if scene.outline is None:
        scene.outline = shapely.box(*bounds)
    return {"bounds": bounds, "src": _data_url(preview)}


def _data_url(preview: Preview) -> str:
    """Encode as JPEG, or as WebP where parts are transparent."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(preview.pixels)
    if preview.pixels[..., 3].min() == 255:
        image.convert("RGB").save(buffer, "JPEG", quality=85, optimize=True)
        kind = "jpeg"
    else:
        image.save(buffer, "WEBP", quality=85, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _rings(outline: BaseGeometry | None) -> list[list[list[float]]]:
    if outline is None:
        return []
    parts = [part for part in shapely.get_parts(outline) if part.geom_type == "Polygon"]
    return [np.round(shapely.get_coordinates(part.exterior), 3).tolist() for part in parts]


def _render(view: View, scenes: list[dict[str, Any]]) -> str:
    """Fill the page's template; scripts and styles are admitted by their hash alone."""
    packer = _Packer()
    meta = {
        "name": view.name,
        "georeferenced": view.georeferenced,
        "notes": view.notes,
        "scenes": scenes,
        "palette": PALETTE,
        "total": view.total,
        "totals": {
            column: [[value, count] for value, count in counts.items()]
            for column, counts in view.totals.items()
        },
        "detections": _pack_detections(view, packer),
        "arrays": packer.arrays,
    }
    assets = resources.files(__name__.rpartition(".")[0]) / "assets"
    script = "\n".join((assets / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    style = (assets / "map.css").read_text(encoding="utf-8")
    fields = {
        "title": html.escape(view.name),
        "style": style,
        "script": script,
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
        # "<" could close the script element, whatever stands in labels and names.
        "meta": json.dumps(meta, allow_nan=False).replace("<", "\\u003c"),
        "blob": packer.encoded(),
    }
    template = (assets / "map.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class _Packer:
    """Lays arrays into one gzip blob, each at a multiple of eight bytes."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self.arrays: dict[str, dict[str, Any]] = {}

    def add(self, name: str, values: NDArray[Any]) -> None:
        self._blob.extend(b"\0" * (-len(self._blob) % 8))
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        self.arrays[name] = {
            "type": values.dtype.name,
            "at": len(self._blob),
            "length": len(values),
        }
        self._blob.extend(little.tobytes())

    def add_json(self, name: str, values: list[Any]) -> None:
        self.add(name, np.frombuffer(json.dumps(values).encode(), np.uint8))

    def encoded(self) -> str:
        return base64.b64encode(gzip.compress(bytes(self._blob), 6, mtime=0)).decode()


def _pack_detections(view: View, packer: _Packer) -> dict[str, Any]:
    """Put the detections into arrays; say where and how in the returned description."""
    frame = view.frame
    rings = shapely.get_exterior_ring(frame.geometry.to_numpy())
    # A geometry that is no polygon is drawn as its bounding box.
    odd = shapely.is_missing(rings)
    if odd.any():
        boxes = shapely.box(*shapely.bounds(frame.geometry.to_numpy()[odd]).T)
        rings[odd] = shapely.get_exterior_ring(boxes)
    coordinates, owner = shapely.get_coordinates(rings, return_index=True)
    origin = coordinates.min(axis=0) if len(coordinates) else np.zeros(2)
    extent = float(np.ptp(coordinates, axis=0).max()) if len(coordinates) else 0.0
    step = max(_FINEST_STEP, extent / (2**31 - 2))
    packer.add("coords", np.round((coordinates - origin) / step).astype(np.int32).ravel())
    packer.add("offsets", np.searchsorted(owner, np.arange(len(frame) + 1)).astype(np.uint32))
    names = [name for name in frame.columns if name != frame.geometry.name]
    columns = [_pack_column(name, pd.Series(frame[name]), packer) for name in names]
    return {
        "count": len(frame),
        "step": step,
        "origin": origin.tolist(),
        "categories": [name for name in view.categories if name in names],
        "columns": columns,
    }


def _pack_column(name: str, values: pd.Series, packer: _Packer) -> dict[str, Any]:
    """Numbers as they are, repeated texts by code, others as JSON."""
    key = f"column {name}"
    if pd.api.types.is_numeric_dtype(values.dtype):
        single = values.dtype in (np.float32, np.float16)
        packer.add(key, values.to_numpy(np.float32 if single else np.float64, na_value=np.nan))
        return {"name": name, "kind": "number"}
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        values = values.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    texts = values.astype(object).where(values.notna(), None)
    texts = texts.map(lambda value: value if value is None else str(value))
    codes, distinct = pd.factorize(texts.to_numpy(), use_na_sentinel=False)
    if len(distinct) <= min(65_535, max(len(values) // 2, 64)):
        packer.add(key, codes.astype(np.uint16))
        known = [None if pd.isna(value) else value for value in distinct]
        return {"name": name, "kind": "code", "values": known}
    packer.add_json(key, texts.tolist())
    return {"name": name, "kind": "text"}
