"""Train a detector with Ray Train: one process for each worker, over the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...catalog.errors import GeosweepError, TrainingError
from .._weights import read_header
from .base import WEIGHTS, check_output
from .detectorconfig import DetectorTraining

if TYPE_CHECKING:
    from .detector import TrainedDetector

RAY_FOLDER = "ray"
"""Ray's own records, in the output folder."""


def train_detector_on_ray(
    config: DetectorTraining | Mapping[str, Any] | str | Path,
    workers: int,
    *,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    use_gpu: bool | None = None,
) -> TrainedDetector:
    """Train a detector as `train_detector` does, with DDP over the workers of a Ray cluster.

    Joins the cluster that ``RAY_ADDRESS`` names, or that this process is connected to; else one is
    started here. With several nodes, data and `trainer.output` must be on storage that all of them
    see under the same path. Every worker takes batches of `data.batch_size`.

    Parameters
    ----------
    config, overrides, resume, overwrite
        As for `train_detector`. `trainer.devices`, `nodes` and `strategy` are up to Ray.
    workers
        Number of processes.
    use_gpu
        A GPU for each of them; None if `trainer.accelerator` asks for one, or this machine has any.

    Raises
    ------
    GeosweepError
        As for `train_detector`; TrainingError if Ray or its workers fail.
    """
    import torch
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from .detector import TrainedDetector

    config = DetectorTraining.of(config, overrides)
    output = config.output.resolve()
    check_output(output, resume=resume, overwrite=overwrite)
    if use_gpu is None:
        wanted = config.trainer.accelerator in ("gpu", "cuda")
        use_gpu = wanted or (config.trainer.accelerator == "auto" and torch.cuda.is_available())
    content = config.model_dump(mode="json")
    content["trainer"] |= {"output": str(output), "devices": "auto", "nodes": 1, "progress": False}
    content["trainer"]["accelerator"] = "gpu" if use_gpu else "cpu"
    trainer = TorchTrainer(
        _work,
        train_loop_config={"config": content, "resume": resume},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=RunConfig(name="run", storage_path=str(output / RAY_FOLDER)),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray has its own classes for every way to fail
        raise TrainingError(f"Training on Ray failed: {_reason(error)}.") from error
    path = output / WEIGHTS
    if not path.is_file():
        raise TrainingError(
            f"Training on Ray ended, but {path} is not to be seen from here; let trainer.output be "
            "on storage that all nodes share."
        )
    stored = read_header(path).metadata
    return TrainedDetector(path, stored["metrics"], tuple(stored["labels"]))


def _work(settings: dict[str, Any]) -> None:
    """One worker's training."""
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    from .detector import train_detector

    train_detector(
        settings["config"],
        resume=settings["resume"],
        overwrite=True,
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
    )


def _reason(error: BaseException) -> str:
    """Return the sentence at the bottom of what Ray wraps around a worker's error."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, GeosweepError):
        failures = getattr(seen, "worker_failures", None)
        seen = next(iter(failures.values())) if failures else seen.__cause__
    text = str(seen or error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if "errors." in line and "Error: " in line]
    line = own[-1].split("Error: ", 1)[1] if own else lines[-1] if lines else repr(error)
    return line.rstrip(".")
