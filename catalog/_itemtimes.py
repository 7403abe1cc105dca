"""When a raster was taken, as `geosweep catalog create` is told to find out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .errors import JobError, RasterError
from .hrefs import local_path, public_href
from .intervals import format_time, parse_interval
from .rasters import raster_stem

_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3, "y": 2}


@dataclass(frozen=True, slots=True)
class TimeRule:
    """Where an item's time comes from.

    Without any of these it is the raster's own tag (``TIFFTAG_DATETIME``).

    Parameters
    ----------
    given
        A time or interval for all rasters, as in ``source.datetime``; it must have both ends.
    pattern
        Where the date stands in a raster's name, in the directives of `strptime` (%Y, %m, %d, %j, %y,
        %H, %M, %S): ``%Y%m%d`` finds 20220705 in ``m_4411035_ne_12_060_20220705.tif``.
    mtime
        Whether the time of change of a local file is taken where it has no tag.

    Raises
    ------
    JobError
        If `given` or `pattern` makes no sense, or both are there.
    """

    given: str | None = None
    pattern: str | None = None
    mtime: bool = False

    def __post_init__(self) -> None:
        if self.given is not None and (self.pattern is not None or self.mtime):
            raise JobError("A time is given for all rasters: leave the other --datetime options.")
        if self.pattern is not None and self.mtime:
            raise JobError("Give --datetime-pattern or --datetime-from-mtime, not both.")
        if self.given is not None:
            _given(self.given)
        if self.pattern is not None:
            _expression(self.pattern)

    def properties(self, href: str, tagged: datetime | None) -> dict[str, Any]:
        """Return `datetime`, and start and end for an interval, as STAC properties.

        Raises
        ------
        RasterError
            If this raster has no time by this rule.
        """
        if self.given is not None:
            start, end = _given(self.given)
            if start == end:
                return {"datetime": format_time(start)}
            return {
                "datetime": None,
                "start_datetime": format_time(start),
                "end_datetime": format_time(end),
            }
        if self.pattern is not None:
            return {"datetime": format_time(_named(href, self.pattern))}
        if tagged is None and self.mtime:
            tagged = _changed(href)
        if tagged is None:
            raise RasterError(
                f"{public_href(href)} has no tag with its time, which STAC demands: give --datetime, "
                "--datetime-pattern or --datetime-from-mtime"
            )
        return {"datetime": format_time(tagged)}


def _given(text: str) -> tuple[datetime, datetime]:
    try:
        start, end = parse_interval(text)
    except ValueError as error:
        raise JobError(f"{error}.") from None
    if start is None or end is None:
        raise JobError(f"datetime '{text}' is open: STAC items need both ends.")
    return start, end


def _named(href: str, pattern: str) -> datetime:
    name = raster_stem(href)
    for match in _expression(pattern).finditer(name):
        try:
            return datetime.strptime(match[1], pattern).replace(tzinfo=UTC)
        except ValueError:
            continue  # digits that look like a date and are none, such as month 35
    raise RasterError(
        f"{public_href(href)} has no date like {pattern} in its name: mend --datetime-pattern"
    )


def _expression(pattern: str) -> re.Pattern[str]:
    """`pattern` as an expression; digits at its ends must not go on beyond it."""
    parts = re.split(r"%(.)", pattern)
    unknown = [name for name in parts[1::2] if name not in _DIGITS]
    directives = ", ".join(f"%{name}" for name in _DIGITS)
    if unknown or "%" in "".join(parts[::2]):
        raise JobError(f"--datetime-pattern {pattern} may hold {directives} and plain text only.")
    if len(set(parts[1::2])) < len(parts[1::2]) or not {"Y", "y"} & set(parts[1::2]):
        raise JobError(f"--datetime-pattern {pattern} needs a year, and no directive twice.")
    pieces = [
        rf"\d{{{_DIGITS[part]}}}" if place % 2 else re.escape(part)
        for place, part in enumerate(parts)
    ]
    # In a lookahead, so that matches may overlap.
    return re.compile(rf"(?<!\d)(?=({''.join(pieces)})(?!\d))")


def _changed(href: str) -> datetime | None:
    path = local_path(href)
    return None if path is None else datetime.fromtimestamp(path.stat().st_mtime, UTC)
