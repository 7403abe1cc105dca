"""Demand for nodes, as a cluster's autoscaler sees it: placement groups that wait for a place."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any, Literal

from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)


class Demand:
    """Asks for GPUs or CPUs that are missing, one group for each, on other nodes than those known.

    Ray takes the groups away itself when the driver ends, however it does.

    Parameters
    ----------
    unit
        What is asked for.
    """

    def __init__(self, unit: Literal["GPU", "CPU"]) -> None:
        self._unit = unit
        self._groups: list[PlacementGroup] = []

    def hold(self, number: int, known: Collection[str]) -> None:
        """Ask for so many now.

        A group that found its place stays there until the place is one of the known ones: what is to work
        there then takes it over. So nothing is asked for twice, nor withheld from those who work.

        Parameters
        ----------
        number
            How many are missing besides what the known nodes have.
        known
            Ids of nodes that are counted already, or can't be used.
        """
        for group in [group for group in self._groups if _place(group) in known]:
            self._remove(group)
        while len(self._groups) > number:
            self._remove(self._groups[-1])
        if len(self._groups) < number:
            # Spare room on a known node is not what is missing, and would end the wait for another.
            elsewhere = {"ray.io/node-id": f"!in({','.join(sorted(known))})"}
            options: Any = {"bundle_label_selector": [elsewhere]} if known else {}
            self._groups += [
                placement_group([{self._unit: 1}], **options)
                for _ in range(number - len(self._groups))
            ]

    def end(self) -> None:
        """Ask for nothing any more."""
        while self._groups:
            self._remove(self._groups[-1])

    def _remove(self, group: PlacementGroup) -> None:
        self._groups.remove(group)
        # Gone with the cluster, if it fails.
        with contextlib.suppress(Exception):
            remove_placement_group(group)


def _place(group: PlacementGroup) -> str | None:
    """The node that has it, if one does."""
    table = placement_group_table(group)
    if table.get("state") != "CREATED":
        return None
    return next(iter(table["bundles_to_node_id"].values()), None)
