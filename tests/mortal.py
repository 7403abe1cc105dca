"""Models that can be held in the middle of a call, so that tests kill them at a known moment.

Actors have the environment of their cluster, not of the driver: whoever starts the cluster names a folder
in `VARIABLE` before.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.detectors import POISON
from tests.hungry import HungryDetector, holds, out_of_memory

VARIABLE = "GEOSWEEP_TEST_GATES"


@dataclass(frozen=True)
class Gate:
    """Where calls of a kind wait, once so many scenes are committed, until it is opened.

    Parameters
    ----------
    kind
        ``detect`` or ``classify``.
    items
        The output's commit records.
    after
        How many of them shut it.
    """

    kind: str
    items: Path
    after: int = 0

    def shut(self) -> None:
        self._clear()
        text = json.dumps([str(self.items), self.after])
        _path(self.kind).write_text(text)

    def open(self) -> None:
        _path(self.kind).unlink()
        self._clear()

    def held(self) -> list[int]:
        """Processes that stand at the gate just now, in a call."""
        return [int(mark.name.partition("-")[2]) for mark in self._marks()]

    def _clear(self) -> None:
        for mark in self._marks():
            mark.unlink(missing_ok=True)

    def _marks(self) -> list[Path]:
        return list(_folder().glob(f"{self.kind}-*"))


class Mortal(HungryDetector):
    """Stops at the gate, has room for three windows, and dies of a poisoned one each time."""

    name = "tests/mortal"
    device = "pretended"

    def detect(self, images):
        if any(holds(POISON, image) for image in images):
            with (_folder() / "deaths").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        with _gate("detect"):
            return super().detect(images)

    def _error(self):
        # What torch raises where its own allocator isn't asked; here, since it starts without torch.
        return RuntimeError("CUDA error: out of memory")


def mortal() -> Mortal:
    return Mortal(3)


def crop_model():
    """A crop model that stops at the gate, and has room for eight crops."""
    from tests.cropmodels import tiny  # and with it torch

    model = tiny()
    classify = model.classify

    def held(crops):
        if len(crops) > 8:
            raise out_of_memory()
        with _gate("classify"):
            return classify(crops)

    model.classify = held
    return model


@contextmanager
def _gate(kind: str) -> Iterator[None]:
    mark = _folder() / f"{kind}-{os.getpid()}"
    while _is_shut(kind):
        mark.touch()
        time.sleep(0.02)
    mark.unlink(missing_ok=True)
    yield


def _is_shut(kind: str) -> bool:
    try:
        items, after = json.loads(_path(kind).read_text())
    except FileNotFoundError:
        return False
    return len(list(Path(items).glob("*.json"))) >= after


def _path(kind: str) -> Path:
    return _folder() / f"gate.{kind}"


def _folder() -> Path:
    return Path(os.environ[VARIABLE])
