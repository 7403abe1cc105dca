"""The pictures of geosweep/tree's card: boxes and curves as SVG, without imagery.

The imagery in the `deepforest` wheel has no licence per file, so that the card shows only boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geosweep.models import Detections
from geosweep.models._annotations import LabelledImage
from geosweep.models._eval_scores import average_precision, precision_recall
from geosweep.models.evaluation import match_boxes

# Okabe & Ito's palette, which colour-blind readers can tell apart.
MATCHED, MISSED, FALSE, OTHER = "#009e73", "#0072b2", "#d55e00", "#888888"
FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Result:
    """What a detector found on a labelled image, from a low score on."""

    name: str
    image: LabelledImage
    found: Detections
    iou: float

    @property
    def matches(self) -> NDArray[np.int64]:
        """For each detection the labelled box that it matches, or -1."""
        return match_boxes(self.found.boxes, self.found.scores, self.image.boxes, self.iou)


def write_boxes(path: Path, result: Result, *, score: float, gsd: float) -> None:
    """Draw matched, missed and false boxes from `score` on, with a scale bar of 20 m."""
    height, width = result.image.pixels.shape[1:]
    kept = result.found.scores >= score
    matches = result.matches[kept]
    found, truth = result.found.boxes[kept], result.image.boxes
    missed = np.setdiff1d(np.arange(len(truth)), matches)
    groups = [
        (f"{np.sum(matches >= 0)} found", MATCHED, "", found[matches >= 0]),
        (f"{len(missed)} labelled and missed", MISSED, "stroke-dasharray='7 4'", truth[missed]),
        (f"{np.sum(matches < 0)} found, matching no label", FALSE, "", found[matches < 0]),
    ]
    parts = [_rect(0, 0, width, height, "fill='#f7f7f4' stroke='#bbb'")]
    x = 10
    for label, colour, dash, boxes in groups:
        style = f"fill='{colour}' fill-opacity='.12' stroke='{colour}' stroke-width='2.5' {dash}"
        outlines = "".join(f"M{a:.0f} {b:.0f}H{c:.0f}V{d:.0f}H{a:.0f}z" for a, b, c, d in boxes)
        parts.append(f"<path d='{outlines}' {style}/>")
        parts.append(_rect(x, height + 20, 26, 26, style))
        parts.append(_text(x + 36, height + 41, label))
        x += 70 + 11.5 * len(label)
    bar = 20 / gsd
    end, y = width - 10, height + 46
    parts.append(
        f"<path d='M{end - bar:.0f} {y - 8}V{y}H{end}V{y - 8}' fill='none' stroke='#222' "
        "stroke-width='3'/>"
    )
    parts.append(_text(end - bar / 2, y - 14, "20 m", "text-anchor='middle'"))
    _write(path, width, height + 60, parts)


def write_curves(path: Path, results: list[Result], *, score: float) -> None:
    """Draw precision over recall; a dot marks the score that the weights come with."""
    side, left, top = 400, 70, 20
    parts = []
    for i in range(6):
        at = i * side / 5
        parts.append(
            f"<path d='M{left} {top + at:.0f}h{side}M{left + at:.0f} {top}v{side}' stroke='#ddd'/>"
        )
        parts.append(_text(left - 8, top + side - at + 6, f"{i / 5:.1f}", "text-anchor='end'"))
        parts.append(_text(left + at, top + side + 24, f"{i / 5:.1f}", "text-anchor='middle'"))
    middle = top + side / 2
    parts.append(_text(left + side / 2, top + side + 52, "recall", "text-anchor='middle'"))
    turned = f"text-anchor='middle' transform='rotate(-90 20 {middle:.0f})'"
    parts.append(_text(20, middle, "precision", turned))
    for i, result in enumerate(results):
        colour = (MATCHED, OTHER)[i]
        correct, trees = result.matches >= 0, len(result.image.boxes)
        scores, precision, recall = precision_recall(correct, result.found.scores, trees)
        xs, ys = left + side * recall, top + side * (1 - precision)
        # Between two steps of the recall the line is straight: its ends do.
        step = np.diff(recall, prepend=0.0, append=np.inf) > 0
        ends = step[:-1] | step[1:]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs[ends], ys[ends], strict=True))
        parts.append(f"<path d='M{line}' fill='none' stroke='{colour}' stroke-width='2.5'/>")
        last = int(np.sum(scores >= score)) - 1
        parts.append(f"<circle cx='{xs[last]:.1f}' cy='{ys[last]:.1f}' r='6' fill='{colour}'/>")
        y = top + side - 20 - 26 * (len(results) - 1 - i)
        parts.append(f"<path d='M{left + 14} {y - 6}h30' stroke='{colour}' stroke-width='3'/>")
        value = average_precision(correct, result.found.scores, trees)
        text = f"{result.name}, {trees} trees: AP40 {value:.3f}"
        parts.append(_text(left + 52, y, text, "font-size='15'"))
    _write(path, left + side + 20, top + side + 66, parts)


def _rect(x: float, y: float, width: float, height: float, style: str) -> str:
    return f"<rect x='{x:.0f}' y='{y:.0f}' width='{width:.0f}' height='{height:.0f}' {style}/>"


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f"<text x='{x:.0f}' y='{y:.0f}' {style}>{text}</text>"


def _write(path: Path, width: float, height: float, parts: list[str]) -> None:
    size = f"viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' height='{height:.0f}'"
    body = "\n".join(parts)
    path.write_text(
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {FONT} font-size='18' fill='#222'>\n"
        f"<rect width='100%' height='100%' fill='#fff'/>\n{body}\n</svg>\n"
    )
