"""A picture of an output: the imagery's mosaic, the boxes on it, and a legend with counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont

from ..catalog.errors import OutputError, RasterError
from ._imagery import Bounds
from ._palette import label_colours
from ._view import SceneView, View, read_view

_MOST_DETECTIONS = 500_000
_BACKGROUND = (24, 28, 26, 255)
_FINE = 2  # boxes are drawn at twice the size and scaled down, which smooths them


@dataclass(frozen=True, slots=True)
class _Frame:
    """Map units to pixels: square pixels, north up."""

    left: float
    top: float
    scale: float
    width: int
    height: int

    def pixels(self, bounds: Bounds) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of a rectangle, at least one pixel wide and high."""
        x0, x1 = (round((x - self.left) * self.scale) for x in (bounds[0], bounds[2]))
        y0, y1 = (round((self.top - y) * self.scale) for y in (bounds[3], bounds[1]))
        return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def write_quicklook(output: str | Path, path: str | Path, *, size: int = 1600) -> Path:
    """Write a PNG of an output, in web mercator (or pixels, for an output without georeferencing).

    Parameters
    ----------
    output
        Folder or URL that `run` wrote.
    path
        The PNG.
    size
        Longest side of the map in pixels; the legend comes below it.

    Returns
    -------
    Path
        Where the picture is.

    Raises
    ------
    OutputError
        If `output` is no output of geosweep, has no scene with a place, or the file can't be written.
    """
    view = read_view(output, max_detections=_MOST_DETECTIONS)
    frame = _fit(view, output, size)
    canvas = Image.new("RGBA", (frame.width, frame.height), _BACKGROUND)
    missing = [
        s for s in view.scenes if s.status != "failed" and not _paste(canvas, s, view, frame)
    ]
    column = _telling_category(view)
    counts = view.totals.get(column, {})
    colours = label_colours(counts)
    _draw_boxes(canvas, view, column, colours, frame)
    picture = _with_legend(canvas, view, counts, colours, missing)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.convert("RGB").save(path, "PNG")
    except OSError as error:
        raise OutputError(f"The picture {path} can't be written: {error.strerror}.") from error
    return path


def _fit(view: View, output: str | Path, size: int) -> _Frame:
    outlines = [scene.outline for scene in view.scenes if scene.outline is not None]
    shapes = [*outlines, *view.frame.geometry]
    if not shapes:
        raise OutputError(
            f"{output} has no scene whose place is known, so there is nothing to draw."
        )
    left, bottom, right, top = (float(v) for v in shapely.total_bounds(np.array(shapes)))
    scale = size / max(right - left, top - bottom, 1e-9)
    width, height = (max(1, round(span * scale)) for span in (right - left, top - bottom))
    return _Frame(left, top, scale, width, height)


def _paste(canvas: Image.Image, scene: SceneView, view: View, frame: _Frame) -> bool:
    """Lay a scene's picture into the mosaic; False if it can't be read."""
    wanted = frame.width if scene.outline is None else _longest_side(scene, frame)
    try:
        preview = view.preview(scene, wanted)
    except RasterError:
        return False
    left, bottom, right, top = preview.bounds
    dx, dy = scene.shift
    x0, y0, x1, y1 = frame.pixels((left + dx, bottom + dy, right + dx, top + dy))
    image = Image.fromarray(preview.pixels).resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS)
    # Smoothing wears away at the alpha of the seams; what is there is there.
    alpha = image.getchannel("A").point([0] * 128 + [255] * 128)
    canvas.paste(image, (x0, y0), alpha)
    return True


def _longest_side(scene: SceneView, frame: _Frame) -> int:
    left, bottom, right, top = shapely.bounds(scene.outline)
    return max(1, round(max(right - left, top - bottom) * frame.scale))


def _telling_category(view: View) -> str:
    """The column to colour by: a crop model's if it tells apart, else the detector's label."""
    telling = [name for name in view.categories if len(view.totals[name]) > 1]
    return (telling or list(view.categories) or ["label"])[-1]


def _draw_boxes(
    canvas: Image.Image,
    view: View,
    column: str,
    colours: dict[str | None, str],
    frame: _Frame,
) -> None:
    if view.frame.empty:
        return
    layer = Image.new("RGBA", (canvas.width * _FINE, canvas.height * _FINE))
    draw = ImageDraw.Draw(layer)
    values = view.frame[column]
    values = values.astype(object).where(values.notna(), None)
    for shape, value in zip(view.frame.geometry, values, strict=True):
        points = shapely.get_coordinates(shape)
        x = (points[:, 0] - frame.left) * frame.scale * _FINE
        y = (frame.top - points[:, 1]) * frame.scale * _FINE
        line = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        draw.line([*line, line[1]], fill=colours[value], width=2 * _FINE, joint="curve")
    small = layer.resize(canvas.size, Image.Resampling.BOX)
    canvas.alpha_composite(small)


def _with_legend(
    canvas: Image.Image,
    view: View,
    counts: dict[str | None, int],
    colours: dict[str | None, str],
    missing: list[SceneView],
) -> Image.Image:
    """Put the name, the totals and the labels' colours below the map."""
    unit = max(10, round(max(canvas.size) / 64))
    font = ImageFont.load_default(unit)
    failed = sum(scene.status == "failed" for scene in view.scenes)
    title = f"{view.name}: {view.total:,} detections in {len(view.scenes):,} scenes"
    if failed:
        title += f", {failed:,} failed"
    if missing:
        title += f" (no imagery for {len(missing):,})"
    entries = [
        (f"{'(none)' if label is None else label}  {n:,}", label) for label, n in counts.items()
    ]
    pad, swatch = unit // 2 + 2, unit
    places, x, y = [], pad, 2 * pad + unit
    for text, label in entries:
        width = swatch + pad + round(font.getlength(text)) + 2 * pad
        if x > pad and x + width > canvas.width:
            x, y = pad, y + unit + pad
        places.append((x, y, text, label))
        x += width
    height = (y + unit + pad) if places else 2 * pad + unit
    picture = Image.new("RGBA", (canvas.width, canvas.height + height), _BACKGROUND)
    picture.paste(canvas, (0, 0))
    draw = ImageDraw.Draw(picture)
    draw.text((pad, canvas.height + pad), title, fill="#ffffff", font=font)
    for x, y, text, label in places:
        top = canvas.height + y
        draw.rectangle((x, top, x + swatch, top + swatch), fill=colours[label])
        draw.text((x + swatch + pad, top), text, fill="#e8ece9", font=font)
    return picture
