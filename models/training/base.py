"""What every training shares around its trainer: configuration files, the output folder, the fit."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from ...catalog.errors import TrainingError
from ...catalog.strict import Block, checked, read_yaml
from .config import TrainerConfig

if TYPE_CHECKING:
    import lightning

CHECKPOINTS = "checkpoints"
"""Folder of checkpoints in the output folder."""
BEST, LAST = "best.ckpt", "last.ckpt"
"""The checkpoint with the best monitored metric, and the one to resume from."""
WEIGHTS = "model.safetensors"
"""The trained model in the output folder."""
CONFIG = "training.yaml"
"""The whole configuration as it was used, beside it."""


class TrainingConfig(Block):
    """A whole training, as written in its configuration file."""

    trainer: TrainerConfig = TrainerConfig()

    @classmethod
    def of(
        cls,
        config: Self | Mapping[str, Any] | str | Path,
        overrides: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a configuration in any of its forms.

        Parameters
        ----------
        config
            A YAML file, its content, or a configuration.
        overrides
            Values by dotted key, such as ``{"trainer.max_epochs": 5}``, over those of `config`.

        Raises
        ------
        TrainingError
            With one sentence that names the key, the value and the nearest valid key.
        """
        where = "the training configuration"
        content: Any
        if isinstance(config, str | Path):
            content, where = read_yaml(config, "training configuration", TrainingError), str(config)
        elif isinstance(config, Mapping):
            content = dict(config)
        elif not overrides:
            return config
        else:
            content = config.model_dump(exclude_unset=True)
        for key, value in (overrides or {}).items():
            content = _replaced(content, key.split("."), value)
        return checked(cls, content, where, TrainingError)

    @property
    def output(self) -> Path:
        """The output folder."""
        return Path(self.trainer.output).expanduser()

    def write(self) -> None:
        """Write the whole configuration into the output folder, as it was used."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        (self.output / CONFIG).write_text(text, encoding="utf-8")


def _replaced(content: Any, path: list[str], value: Any) -> Any:
    block = dict(content) if isinstance(content, dict) else {}
    rest = path[1:]
    block[path[0]] = _replaced(block.get(path[0]), rest, value) if rest else value
    return block


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to train over a training, or to go on with one that isn't there.

    Raises
    ------
    TrainingError
        Saying what to do instead.
    """
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0):
        return
    last = output / CHECKPOINTS / LAST
    if resume:
        if not last.is_file():
            raise TrainingError(f"There is no {last} to go on from; leave --resume out.")
        return
    there = [output / WEIGHTS, last, output / CHECKPOINTS / BEST]
    found = [path for path in there if path.exists()]
    if found and not overwrite:
        raise TrainingError(
            f"{output} holds a training already ({found[0].relative_to(output)}); go on with it "
            "(--resume), choose another folder (--output), or let it be replaced (--overwrite)."
        )
    for path in found:
        path.unlink()


def fit(
    trainer: lightning.Trainer, module: lightning.LightningModule, resume: Path | None, **data: Any
) -> None:
    """Run a training; `resume` is the checkpoint to go on from.

    Raises
    ------
    TrainingError
        If a GPU's memory is too small.
    KeyboardInterrupt
        If the user stopped it, which Lightning turns into other things.
    """
    import torch

    checkpoint = None if resume is None else str(resume)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True, **data)
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, interrupt)  # Lightning has switched it off
        raise KeyboardInterrupt from None
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "The GPU's memory is too small for this batch; lower data.batch_size, and raise "
            "trainer.accumulate."
        ) from error
