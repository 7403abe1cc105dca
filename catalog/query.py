"""What is asked of a STAC API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .intervals import Interval

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of an API.

    Parameters
    ----------
    collections
        Ids of collections; None for all.
    area
        In EPSG:4326.
    interval
        Both ends inclusive, None where open.
    filter
        CQL2 as JSON.
    sortby
        Names of properties, with ``-`` before them for descending.
    limit
        At most so many distinct items.
    ids
        Of items; None for all.
    fields
        Names of the fields that are wanted, where the server can leave others out; None for all.
    page
        Items that the server may send at a time.
    """

    collections: tuple[str, ...] | None = None
    area: BaseGeometry | None = None
    interval: Interval | None = None
    filter: dict[str, Any] | None = None
    sortby: tuple[str, ...] | None = None
    limit: int | None = None
    ids: tuple[str, ...] | None = None
    fields: tuple[str, ...] | None = None
    page: int = 200  # items of some collections weigh 50 kB, and servers give up on pages of 10 MB
