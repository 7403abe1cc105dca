"""A crop model in a run: batches that fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .halving import Halving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..models import BareCropModel


class CropClassifier:
    """Classifies crops, in smaller batches once memory has run out.

    Parameters
    ----------
    model
        The loaded crop model.
    name
        Its column prefix.

    Attributes
    ----------
    halving
        Tells of smaller batches.
    """

    def __init__(self, model: BareCropModel, name: str) -> None:
        self.model = model
        self.halving = Halving(
            f"crop model {name}", "crops", "choose another GPU, or fewer classifiers on each"
        )

    def classify(self, crops: Sequence[Any]) -> NDArray[np.float32]:
        """Class probabilities (N, classes) of crops (see `CropModel.classify`).

        Raises
        ------
        DeviceMemoryError
            If memory runs out with a single crop.
        """
        parts = self.halving.run(self.model.classify, crops)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
