"""A tile filter's network under Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule

from ._tilecells import cell_loss, cell_targets
from .optimizer import configure_optimizers
from .tileconfig import TileOptimizer

if TYPE_CHECKING:
    from torch import Tensor

    from .._tilenet import TileNet
    from .config import OptimizerConfig

    Batch = tuple[list[Tensor], list[dict[str, Any]]]


class TileFilterModule(LightningModule):
    """Trains a `TileNet` on windows with boxes.

    Parameters
    ----------
    network
        The network, trained in place.
    optimizer
        Learning rates and their schedule; `TileOptimizer` if None.
    """

    def __init__(self, network: TileNet, optimizer: OptimizerConfig | None = None) -> None:
        super().__init__()
        self.network = network
        self.settings = optimizer or TileOptimizer()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch (see `cell_loss`)."""
        loss = self._loss(batch)
        self.log("train_loss", loss, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log ``val_loss``."""
        loss = self._loss(batch)
        self.log("val_loss", loss, batch_size=len(batch[0]), sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, the backbone slower than the head."""
        return configure_optimizers(self, self.settings, backbone=("network.body.",))

    def _loss(self, batch: Batch) -> Tensor:
        images, targets = batch
        # Rasters smaller than a window give windows of their own size.
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            shapes.setdefault(tuple(image.shape), []).append(i)
        losses = []
        for members in shapes.values():
            cells = self.network.cells(torch.stack([images[i] for i in members]))
            wanted = cell_targets(
                [targets[i] for i in members],
                self.network.foreground,
                (cells.shape[2], cells.shape[3]),
                self.network.config.cell,
            )
            losses.append(cell_loss(cells, wanted) * len(members))
        return torch.stack(losses).sum() / len(images)
