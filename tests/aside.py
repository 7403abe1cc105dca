"""Programs that start a cluster of their own, aside from the one that the tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 580
"""Little less than a test may take."""


def seen_aside(module: str, folder: Path) -> dict[str, Any]:
    """Run ``python -m MODULE FOLDER``, and give what it wrote to ``FOLDER/seen.json``.

    No variable of Ray's reaches it, so that it meets no other cluster.
    """
    # Ray's sockets need short paths, and its own folder keeps this cluster out of the others' sight.
    with tempfile.TemporaryDirectory(prefix="gs") as ray_folder:
        ray = {"RAY_TMPDIR": ray_folder, "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            [sys.executable, "-m", module, str(folder)],
            cwd=Path(__file__).parents[1],
            env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | ray,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "seen.json").read_text())
