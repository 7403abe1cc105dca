"""Python values of Arrow columns, many times as fast as pyarrow's own way where that matters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .intervals import format_time

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


def as_python(column: pa.Array) -> list[Any]:
    """Python values; times, and equally long lists of numbers, many times as fast as pyarrow's own way."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz == "UTC" and kind.unit != "ns":
        return _times(column)
    if pa.types.is_list(kind) and kind.value_type in (pa.float64(), pa.int64()):
        numbers = _matrix(column)
        if numbers is not None:
            return numbers.tolist()
    return column.to_pylist()


def _matrix(column: pa.ListArray) -> NDArray[Any] | None:
    """Lists of numbers as a matrix; None where they aren't equally long, or have nulls."""
    import pyarrow.compute as pc

    if column.null_count:
        return None
    numbers = column.flatten()
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()  # type: ignore[attr-defined]
    if len(lengths) != 1 or not lengths[0] or numbers.null_count:
        return None
    return numbers.to_numpy().reshape(-1, lengths[0])


def _times(column: pa.Array) -> list[datetime | None]:
    import pyarrow as pa

    naive = column.cast(pa.timestamp("us", "UTC")).to_numpy(zero_copy_only=False).tolist()
    if not all(time is None or isinstance(time, datetime) for time in naive):
        return column.to_pylist()  # beyond the years that Python knows; it says so
    return [None if time is None else time.replace(tzinfo=UTC) for time in naive]


def as_text(column: pa.Array) -> list[Any]:
    """As `as_python`, with times as STAC writes them."""
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        return as_python(column)
    if column.type.tz == "UTC" and column.type.unit != "ns" and not column.null_count:
        moments = column.cast(pa.timestamp("us", "UTC")).to_numpy(zero_copy_only=False)
        whole = moments.astype("datetime64[s]")
        first, beyond = np.datetime64("0001-01-01"), np.datetime64("10000-01-01")
        if (whole == moments).all() and (whole >= first).all() and (whole < beyond).all():
            return np.datetime_as_string(whole, timezone="UTC").tolist()
    return [time if time is None else format_time(time) for time in as_python(column)]
