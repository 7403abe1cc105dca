"""Greedy non-maximum suppression, best box first, in time that follows the number of boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._boxcells import BoxCells

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rivals = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.bool_]]


def suppress(
    boxes: NDArray[np.floating], rank: NDArray[np.integer], rivals: Rivals
) -> NDArray[np.bool_]:
    """Drop each box that a better one excludes, unless that one is dropped itself.

    The best boxes that are left are compared, some at a time, with all worse ones near them. So only
    boxes that survive the better ones are ever looked at: where ten lie on each object, one in ten.
    Pairs aren't stored beyond that, and memory doesn't grow with their number.

    Parameters
    ----------
    boxes
        (N, 4): xmin, ymin, xmax, ymax. It is fastest when neighbours stand near each other, as
        window by window.
    rank
        (N,) box numbers from best to worst.
    rivals
        Says of pairs of box numbers, (M,) each, whether the two exclude each other; the same for (a, b)
        as for (b, a). Boxes that don't overlap can't.

    Returns
    -------
    NDArray
        bool (N,): which boxes are kept.
    """
    count = len(boxes)
    kept = np.ones(count, bool)
    if count < 2:
        return kept
    cells = BoxCells(boxes)
    turn = np.empty(count, np.int32)
    turn[rank] = np.arange(count, dtype=np.int32)
    todo = rank.astype(np.int32)
    while len(todo):
        some = cells.batch(todo)
        end = turn[some[-1]]
        a, b = cells.near(np.sort(some))
        open_ = (turn[a] < turn[b]) & kept[b]
        # Many times as fast as a mask in brackets.
        a, b = np.compress(open_, a), np.compress(open_, b)
        exclude = rivals(a, b)
        a, b = np.compress(exclude, a), np.compress(exclude, b)
        among = turn[b] <= end
        _settle(kept, a[among], b[among])
        kept[b[kept[a]]] = False
        todo = todo[len(some) :]
        todo = todo[kept[todo]]
    return kept


def _settle(
    kept: NDArray[np.bool_], better: NDArray[np.integer], worse: NDArray[np.integer]
) -> None:
    """Decide pairs of kept boxes; the same as one after the other from the best, but in rounds.

    A box that no better one is left for stays, and takes its partners out.
    """
    beaten = np.zeros(len(kept), bool)
    while len(better):
        beaten[worse] = True
        winning = ~beaten[better]
        beaten[worse] = False
        kept[worse[winning]] = False
        open_ = ~winning & kept[better] & kept[worse]
        better, worse = better[open_], worse[open_]


def rivals_among(
    boxes: NDArray[np.floating], rivals: Rivals
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """All pairs of boxes, as (a, b) and as (b, a), that `rivals` says yes to; some stand there twice.

    Parameters
    ----------
    boxes
        (N, 4).
    rivals
        As for `suppress`, but may tell (a, b) from (b, a).
    """
    found: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    todo = np.arange(len(boxes), dtype=np.int32)
    cells = BoxCells(boxes) if len(boxes) else None
    while cells is not None and len(todo):
        some = cells.batch(todo)
        a, b = cells.near(some)
        yes = rivals(a, b)
        found.append((a[yes], b[yes]))
        todo = todo[len(some) :]
    none = np.zeros(0, np.int32)
    return (
        np.concatenate([none, *(a for a, _ in found)]),
        np.concatenate([none, *(b for _, b in found)]),
    )
