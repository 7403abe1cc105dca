"""CQL2 filters, applied on our side where no server does."""

from __future__ import annotations

import json
from typing import Any

from .errors import SourceError


class ItemFilter:
    """Tells the items that a CQL2 filter means.

    An item without a property that decides the filter is left out, as databases do with nulls:
    neither ``a = 1`` nor ``not a = 1`` holds for it, while ``a = 1 or b = 2`` may.

    Parameters
    ----------
    expression
        CQL2 as JSON. Names are the item's properties, with or without ``properties.`` before them,
        or ``id``, ``collection`` and ``geometry``.

    Raises
    ------
    SourceError
        If it is no CQL2.
    """

    def __init__(self, expression: dict[str, Any]) -> None:
        import cql2

        self._text = json.dumps(expression)
        try:
            self._filter = cql2.Expr(expression)
            self._filter.validate()
        except Exception:  # the package raises bare ones for what it can't parse
            raise SourceError(
                f"source.filter {_short(self._text)} is no CQL2: write it as cql2-json, such as "
                "{op: '<', args: [{property: 'eo:cloud_cover'}, 20]}"
            ) from None

    def matches(self, item: dict[str, Any]) -> bool:
        """Whether an item passes.

        Raises
        ------
        SourceError
            If the filter can't be worked out although the item has all it asks for: an unknown
            operator, or a number compared with text.
        """
        try:
            rest = self._filter.reduce(item).to_json()
        except Exception as error:
            raise self._stuck(item, str(error)) from None
        if isinstance(rest, bool):
            return rest
        if not _mentions_property(rest):
            raise self._stuck(item, f"{_short(json.dumps(rest))} is neither true nor false")
        return False

    def _stuck(self, item: dict[str, Any], reason: str) -> SourceError:
        return SourceError(
            f"source.filter {_short(self._text)} can't be applied to item {item['id']} "
            f"({reason}): use CQL2's own operators, on values of one type"
        )


def _mentions_property(expression: Any) -> bool:
    if isinstance(expression, dict):
        return "property" in expression or any(map(_mentions_property, expression.values()))
    return isinstance(expression, list) and any(map(_mentions_property, expression))


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}…"
