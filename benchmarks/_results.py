"""What benchmarks write to `benchmarks/results/`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "results"


def setting(*packages: str) -> dict[str, Any]:
    """The machine, and the versions of packages, to stand before what was measured."""
    return {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor()},
        "versions": {name: version(name) for name in packages},
    }


def save(name: str, content: Mapping[str, Any]) -> None:
    """Write ``results/NAME.json``."""
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
