"""Times and time intervals as STAC writes them."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

Interval = tuple[datetime | None, datetime | None]

_PARTIAL = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time as an aware datetime in UTC (a time without zone is taken as UTC)."""
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """Return `moment` as STAC writes it: UTC with a ``Z``."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_interval(text: str) -> Interval:
    """Return the (start, end) that `text` means, both inclusive, None where open.

    Raises
    ------
    ValueError
        If `text` is neither a time, nor a day, month or year, nor two of them with a slash.
    """
    parts = text.split("/")
    if len(parts) > 2 or not text.strip():
        raise ValueError(_complaint(text))
    try:
        spans = [_span(part.strip()) for part in parts]
    except ValueError:
        raise ValueError(_complaint(text)) from None
    start, end = spans[0][0], spans[-1][1]
    if start is None and end is None:
        raise ValueError(_complaint(text))
    if start is not None and end is not None and start > end:
        raise ValueError(f"datetime '{text}' ends before it starts")
    return start, end


def overlaps(interval: Interval, other: Interval) -> bool:
    """Whether two inclusive intervals share an instant."""
    (start, end), (other_start, other_end) = interval, other
    before = end is not None and other_start is not None and end < other_start
    after = start is not None and other_end is not None and start > other_end
    return not before and not after


def _span(text: str) -> Interval:
    if text in ("", ".."):
        return None, None
    partial = _PARTIAL.fullmatch(text)
    if partial is None:
        moment = parse_time(text)
        return moment, moment
    year, month, day = (int(group) if group else None for group in partial.groups())
    assert year is not None
    start = datetime(year, month or 1, day or 1, tzinfo=UTC)
    last = datetime(
        year,
        month or 12,
        day or calendar.monthrange(year, month or 12)[1],
        tzinfo=UTC,
    )
    return start, last + timedelta(days=1, microseconds=-1)


def _complaint(text: str) -> str:
    return (
        f"datetime '{text}' is not a time or interval: write 2022-06-01, 2022-06-01T00:00:00Z, "
        "or start/end with .. for an open end"
    )
