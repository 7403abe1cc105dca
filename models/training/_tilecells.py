"""What a tile filter should say of each part of a window, and how wrong it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from torch import Tensor


class CellTargets(NamedTuple):
    """What the cells of windows show, for each foreground label and, last, for any of them.

    Parameters
    ----------
    present
        bool (B, labels, h, w): the cell surely shows one: its centre is in a box, or a box's centre
        in the cell.
    touched
        bool (B, labels, h, w): it may show a part of one: a box comes within half a cell.
    """

    present: Tensor
    touched: Tensor


def cell_targets(
    targets: Sequence[dict[str, Any]], foreground: int, shape: tuple[int, int], cell: int
) -> CellTargets:
    """Turn the boxes of windows into what their cells show.

    Parameters
    ----------
    targets
        ``boxes`` float32 (N, 4) in pixels of the window and ``labels`` int64 (N,) of each window.
    foreground
        Number of foreground labels.
    shape
        Height and width of a window in cells.
    cell
        Side of a cell in pixels.
    """
    present = torch.zeros(len(targets), foreground + 1, *shape, dtype=torch.bool)
    touched = torch.zeros_like(present)
    middles = [(torch.arange(n) + 0.5) * cell for n in shape]
    for window, target in enumerate(targets):
        x0, y0, x1, y1 = (side[:, None] for side in target["boxes"].cpu().unbind(1))
        # For each box: the rows and the columns of cells in it, with its centre, and near it.
        inside, centre, near = [], [], []
        for middle, low, high in zip(middles, (y0, x0), (y1, x1), strict=True):
            inside.append((middle >= low) & (middle <= high))
            home = ((low + high) / 2).div(cell, rounding_mode="floor").clamp(0, len(middle) - 1)
            centre.append(torch.arange(len(middle)) == home)
            near.append((middle + cell > low) & (middle - cell < high))
        shown = _crossed(inside) | _crossed(centre)
        close = _crossed(near) | shown
        labels = target["labels"].cpu()
        for row in range(foreground + 1):
            mine = labels == row if row < foreground else torch.ones_like(labels, dtype=torch.bool)
            present[window, row] = shown[mine].any(0)
            touched[window, row] = close[mine].any(0)
    return CellTargets(present, touched)


def _crossed(rows_columns: list[Tensor]) -> Tensor:
    """(N, h) and (N, w) to (N, h, w): where both hold."""
    rows, columns = rows_columns
    return rows[:, :, None] & columns[:, None, :]


def cell_loss(cells: Tensor, targets: CellTargets) -> Tensor:
    """Binary cross-entropy of blocks of cells of every size, from one cell to the whole window.

    A block shows a label if its likeliest cell does, as a window does: so one window teaches what
    smaller ones look like, empty parts of a full one among them. Blocks with and without an object
    weigh the same, label by label and size by size; blocks that boxes only touch don't count.

    Parameters
    ----------
    cells
        Logits (B, labels, h, w) of `TileNet.cells`, `empty` last.
    targets
        For the same cells.
    """
    # An empty window is one where nothing of any label is seen: the last row, turned around.
    logits = torch.cat([cells[:, :-1], -cells[:, -1:]], dim=1).float()
    present, touched = (t.to(logits.device, torch.float32) for t in targets)
    height, width = logits.shape[2:]
    losses = []
    for size in _block_sizes(max(height, width)):
        block = (min(size, height), min(size, width))
        pooled = F.max_pool2d(logits, block, ceil_mode=True)
        shown = F.max_pool2d(present, block, ceil_mode=True) > 0
        bare = F.max_pool2d(touched, block, ceil_mode=True) == 0
        losses.append(_balanced(F.softplus(-pooled), shown) + _balanced(F.softplus(pooled), bare))
    return torch.stack(losses).mean()


def _block_sizes(cells: int) -> list[int]:
    """1, 2, 4 … and all."""
    sizes = [1]
    while sizes[-1] * 2 < cells:
        sizes.append(sizes[-1] * 2)
    return sizes if cells == 1 else [*sizes, cells]


def _balanced(loss: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen blocks of each label, then over labels; 0 where nothing is chosen."""
    chosen = chosen.transpose(0, 1).flatten(1)
    loss = loss.transpose(0, 1).flatten(1)
    return ((loss * chosen).sum(1) / chosen.sum(1).clamp_min(1)).mean()
