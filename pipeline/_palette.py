"""Colours of labels, the same on the map page and the quicklook."""

from __future__ import annotations

from collections.abc import Iterable

PALETTE = (
    "#ffd21f",
    "#ff4d6d",
    "#35d0ff",
    "#b14dff",
    "#ff9f1c",
    "#2ee6a6",
    "#ffffff",
    "#f15bb5",
    "#7aa2ff",
    "#c0d72f",
)
"""Bright enough for dark canopies, and apart in hue and lightness for colour-blind readers."""


def label_colours(labels: Iterable[str | None]) -> dict[str | None, str]:
    """Give each label a colour, in the order given; after the tenth they come round again."""
    return {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(labels)}
