"""TileFilter: tell windows that are sure to be empty from those that a detector should see."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..catalog.errors import ModelError
from ..catalog.strict import checked
from ._checkpoints import load_strictly, read_state, source_metadata
from ._fused import fuse
from ._threads import cpu_threads, map_in_threads
from ._tilenet import ARCHITECTURE, TileNet, TileNetConfig
from ._weights import write_weights
from .detector import as_batch, describe_device, fold_batch_norm, pick_device
from .protocol import TileScorer
from .tilethreshold import judge_windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ._sources import WeightsSource
    from .info import ModelInfo

EMPTY = "empty"
"""The label of windows without objects, the last of a tile filter's labels."""
_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
_log = logging.getLogger("geosweep")


class TileFilter:
    """A multi-label classifier of windows, cheap beside a detector.

    Parameters
    ----------
    labels
        The foreground labels, as the detector has them; ``"empty"`` is added as the last.
    network
        The network, its shape, or None for the usual shape; a shape gets random weights.
    empty_threshold
        A window may be dropped from this score of `empty` on; 1 drops none.
    label_thresholds
        A label counts as seen from this score on: one for all, or one for each foreground label.
    window_size
        Side of the windows it was trained on, in pixels.
    gsd
        Ground sample distance it was trained on, in metres.
    details
        JSON-ready particulars for the file: ``description``, ``licence``, ``training_data``,
        ``metrics``.
    info
        What the file says that it was loaded from.
    device
        Where to run: ``cpu``, ``cuda``, ``cuda:1`` …; None takes a GPU if there is one.
    threads
        CPU threads; None for one a core.

    Attributes
    ----------
    name, version, labels, device
        As in `TileScorer`.

    Raises
    ------
    ModelError
        If labels and thresholds don't fit each other.

    Notes
    -----
    On a CPU each window goes through the network by itself, in a thread of its own: its scores depend
    neither on its batch nor on the number of threads, to the bit. Nor do they change when the filter
    is saved and loaded.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        network: TileNet | TileNetConfig | None = None,
        empty_threshold: float = 0.9,
        label_thresholds: float | Sequence[float] = 0.5,
        window_size: int | None = None,
        gsd: float | None = None,
        details: Mapping[str, Any] | None = None,
        info: ModelInfo | None = None,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.labels = (*_foreground(labels), EMPTY)
        count = len(self.labels) - 1
        if not isinstance(network, TileNet):
            network = TileNet(count, network)
        if network.foreground != count:
            raise ModelError(
                f"The network has {network.foreground} foreground outputs, but there are {count} "
                f"labels ({', '.join(self.labels[:-1][:5])})."
            )
        self.empty_threshold = float(empty_threshold)
        limits = [label_thresholds] if np.isscalar(label_thresholds) else label_thresholds
        self.label_thresholds = tuple(float(v) for v in limits)  # type: ignore[union-attr]
        if len(self.label_thresholds) == 1:
            self.label_thresholds *= count
        judge_windows(np.zeros((0, count + 1)), self.empty_threshold, self.label_thresholds)
        self.window_size, self.gsd = window_size, gsd
        self.details = dict(details or {})
        self.info = info
        self.name = info.name if info is not None else "tilefilter"
        self.threads = threads
        self.network = copy.deepcopy(network).to("cpu").eval().requires_grad_(False)
        self.version = _version(self.network, self.labels) if info is None else info.version
        self._place = pick_device(device)
        self.device = str(self._place)
        # Folded for speed; the plain network is for the file.
        if self._place.type == "cpu":
            self._fast: torch.nn.Module = fuse(self.network)
        else:
            self._fast = fold_batch_norm(copy.deepcopy(self.network))
            self._fast.to(self._place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _log.info(
            "%s runs on %s", self.name, describe_device(self._place, cpu_threads(self.threads))
        )

    def scores(
        self, images: NDArray[np.uint8] | NDArray[np.float32] | torch.Tensor
    ) -> NDArray[np.float32]:
        """Score a batch of windows (see `TileScorer.scores`); always less than 1."""
        batch = as_batch(images, self._place)
        if len(batch) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        if self._place.type == "cpu":
            parts = map_in_threads(self._forward, batch.split(1), cpu_threads(self.threads))
            return np.concatenate(parts)
        return self._forward(batch)

    def judge(
        self, scores: NDArray[np.float32], *, empty_threshold: float | None = None
    ) -> NDArray[np.int8]:
        """Decide what becomes of scored windows: int8 (B,) of `TileVerdict`.

        Parameters
        ----------
        scores
            From `scores`.
        empty_threshold
            None for the filter's own.
        """
        limit = self.empty_threshold if empty_threshold is None else empty_threshold
        return judge_windows(scores, limit, self.label_thresholds)

    def save(self, path: str | Path) -> Path:
        """Write weights, labels, thresholds and what was measured to one ``.safetensors`` file.

        Raises
        ------
        ModelError
            If the file's name does not end in ``.safetensors``.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ModelError(f"{path}: a tile filter is saved as .safetensors; name it so.")
        path.parent.mkdir(parents=True, exist_ok=True)
        net = self.network
        metadata = {
            **self.details,
            "kind": "tilefilter",
            "architecture": ARCHITECTURE,
            "config": net.config.model_dump(),
            "labels": list(self.labels),
            "empty_threshold": self.empty_threshold,
            "label_thresholds": list(self.label_thresholds),
            "window_size": self.window_size,
            "gsd": self.gsd,
            "normalize": [net.mean.flatten().tolist(), net.std.flatten().tolist()],
        }
        write_weights(path, net.state_dict(), metadata, half=False)
        return path

    def _forward(self, images: torch.Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = images.contiguous(memory_format=torch.channels_last)
            scores = self._fast(images).float().sigmoid()
            # A sigmoid rounds to 1 for large logits; a threshold of 1 must mean `never`.
            return scores.clamp(max=_BELOW_ONE).cpu().numpy()


def load_tile_filter(
    model: str | Path | TileScorer, *, device: str | None = None, threads: int | None = None
) -> TileScorer:
    """Load a tile filter.

    Parameters
    ----------
    model
        A ``.safetensors`` file that `TileFilter.save` wrote, a folder or ``hf:owner/repo`` that
        holds one as model.safetensors; ``package.module:factory``, called without arguments; or a
        tile filter, which is returned as it is.
    device, threads
        As for `TileFilter`.

    Raises
    ------
    ModelError
        If the model can't be found, read or matched to its architecture, or there is no such device.
    """
    from ._factories import call_factory
    from ._sources import FactorySource, find_source
    from .info import KIND_NAMES
    from .loading import model_info

    if not isinstance(model, str | Path):
        return _checked(model, type(model).__name__)
    source = find_source(model)
    if isinstance(source, FactorySource):
        return _checked(call_factory(source), source.name)
    info = model_info(model, "tilefilter")
    if info.kind != "tilefilter":
        raise ModelError(f"{model}: is a {KIND_NAMES[info.kind]}, not a tile filter.")
    return _from_file(source, info, device, threads)


def _from_file(
    source: WeightsSource, info: ModelInfo, device: str | None, threads: int | None
) -> TileFilter:
    metadata = source_metadata(source)
    if metadata["architecture"] != ARCHITECTURE:
        raise ModelError(
            f"{source.name}: has the architecture {metadata['architecture']}, which this geosweep "
            f"does not know (it builds {ARCHITECTURE}); upgrade geosweep."
        )
    labels = metadata["labels"][:-1]
    where = f"the header of {source.name}"
    network = TileNet(len(labels), checked(TileNetConfig, metadata["config"], where, ModelError))
    state, _ = read_state(source)
    load_strictly(network, state, source.name)
    details = ("description", "licence", "training_data", "metrics")
    return TileFilter(
        labels,
        network=network,
        empty_threshold=metadata["empty_threshold"],
        label_thresholds=metadata["label_thresholds"],
        window_size=metadata["window_size"],
        gsd=metadata["gsd"],
        details={key: metadata[key] for key in details if key in metadata},
        info=info,
        device=device,
        threads=threads,
    )


def _checked(scorer: Any, name: str) -> TileScorer:
    if not isinstance(scorer, TileScorer):
        parts = ("name", "version", "labels", "empty_threshold", "device", "scores")
        missing = [part for part in parts if not hasattr(scorer, part)]
        raise ModelError(f"{name}: is no tile filter, it lacks {', '.join(missing)}.")
    labels = tuple(scorer.labels)
    if len(labels) < 2 or labels[-1] != EMPTY:
        raise ModelError(
            f"{name}: a tile filter's labels are the detector's and then {EMPTY!r}, not {labels}."
        )
    return scorer


def _foreground(labels: Sequence[str]) -> tuple[str, ...]:
    names = tuple(labels)
    if isinstance(labels, str) or not names or len(set(names)) != len(names) or EMPTY in names:
        raise ModelError(
            f"A tile filter's labels are {labels!r}: give the detector's, each once, without "
            f"{EMPTY!r}, which is added."
        )
    return names


def _version(network: TileNet, labels: tuple[str, ...]) -> str:
    text = json.dumps([ARCHITECTURE, network.config.model_dump(), labels])
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
