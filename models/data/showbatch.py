"""A picture of a batch with its boxes: what the network is going to learn from."""

from __future__ import annotations

import colorsys
import math
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor
from torchvision.utils import draw_bounding_boxes, make_grid

from ...catalog.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

_MAX_TILES = 16
_TILE = 480
_LINE = 18
_BACKGROUND = 250


def show_batch(
    batch: tuple[Sequence[Tensor], Sequence[dict[str, Any]]],
    labels: Sequence[str],
    path: str | Path | None = None,
) -> Tensor:
    """Draw a batch: a grid of its first 16 windows, with boxes coloured by label.

    Parameters
    ----------
    batch
        Images, float (3, H, W) in 0–1, and targets, as from `DetectionDataModule`.
    labels
        Names of the label indices.
    path
        PNG file to write; None for none.

    Returns
    -------
    Tensor
        The picture, uint8 (3, H, W).

    Raises
    ------
    OutputError
        If the file can't be written.
    """
    images, targets = batch
    colours = [_colour(i, len(labels)) for i in range(len(labels))]
    side = max(max(image.shape[1:]) for image in images)
    factor = max(1, min(4, _TILE // side))
    tiles = [
        _tile(image, target, labels, colours, factor, side * factor)
        for image, target in zip(images[:_MAX_TILES], targets[:_MAX_TILES], strict=True)
    ]
    grid = make_grid(tiles, nrow=_columns(len(tiles)), padding=8, pad_value=_BACKGROUND)
    legend = _legend(labels, colours, targets, grid.shape[2])
    picture = torch.cat([legend, grid], dim=1)
    if path is not None:
        try:
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path, format="PNG")
        except OSError as error:
            raise OutputError(f"The picture {path} can't be written: {error.strerror}.") from error
    return picture


def _tile(
    image: Tensor,
    target: dict[str, Any],
    labels: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    factor: int,
    side: int,
) -> Tensor:
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    # Whole multiples without smoothing: one sees the very pixels.
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    boxes, classes = target["boxes"].detach().cpu() * factor, target["labels"].tolist()
    if len(boxes):
        pixels = draw_bounding_boxes(pixels, boxes, colors=[colours[i] for i in classes], width=2)
    x, y, width, height = target["window"]
    count = "no box" if not classes else "1 box" if len(classes) == 1 else f"{len(classes)} boxes"
    details = f"{count} in {width} x {height} px at {x}, {y}"
    caption = _caption((PurePath(target["image_path"]).name, details), side)
    padded = F.pad(
        pixels, (0, side - pixels.shape[2], 0, side - pixels.shape[1]), value=_BACKGROUND
    )
    return torch.cat([caption, padded], dim=1)


def _columns(count: int) -> int:
    """As many columns as leave the fewest gaps in a grid that is not much wider than high."""
    root = math.ceil(count**0.5)
    return min((root, root + 1), key=lambda columns: -count % columns)


def _caption(lines: Sequence[str], width: int) -> Tensor:
    """Grey lines of text, cut in the middle where they are too long."""
    strip, draw, font = _strip(width, len(lines))
    for i, line in enumerate(lines):
        text, keep = line, len(line)
        while draw.textlength(text, font=font) > width and keep > 4:
            keep -= 1
            text = f"{line[: keep // 2]}...{line[-(keep // 2) :]}"
        draw.text((1, i * _LINE + 2), text, fill=(60, 60, 60), font=font)
    return pil_to_tensor(strip)


def _legend(
    labels: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    targets: Sequence[dict[str, Any]],
    width: int,
) -> Tensor:
    """A coloured square for each label, with the number of its boxes in the batch."""
    counts = torch.bincount(
        torch.cat([target["labels"].cpu() for target in targets]), minlength=len(labels)
    ).tolist()
    places, x, y = [], 8, 0
    _, draw, font = _strip(width, 1)
    texts = [f"{label} ({count})" for label, count in zip(labels, counts, strict=True)]
    for text in texts:
        long = 16 + round(draw.textlength(text, font=font))
        if x > 8 and x + long > width:
            x, y = 8, y + _LINE
        places.append((x, y))
        x += long + 20
    strip, draw, font = _strip(width, y // _LINE + 1)
    for text, colour, (x, y) in zip(texts, colours, places, strict=True):
        draw.rectangle((x, y + 5, x + 10, y + 15), fill=colour)
        draw.text((x + 16, y + 2), text, fill=(60, 60, 60), font=font)
    return pil_to_tensor(strip)


def _strip(width: int, lines: int) -> tuple[Image.Image, ImageDraw.ImageDraw, Any]:
    strip = Image.new("RGB", (width, lines * _LINE + 2), (_BACKGROUND,) * 3)
    return strip, ImageDraw.Draw(strip), ImageFont.load_default(13)


def _colour(index: int, count: int) -> tuple[int, int, int]:
    """Hues as far apart as can be, from magenta on: rare in aerial imagery."""
    red, green, blue = colorsys.hsv_to_rgb((0.86 + index / max(count, 1)) % 1, 0.95, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
