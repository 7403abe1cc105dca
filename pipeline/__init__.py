"""The job: what a user imports to sweep rasters.

Names are looked up on first use, so that `import geosweep.pipeline` stays fast. No module here bears
the name of a public function: importing it would hide the function.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..catalog.errors import (
    ClusterError,
    GeosweepError,
    JobError,
    ModelError,
    OutputError,
    RasterError,
    SourceError,
    StorageError,
)

if TYPE_CHECKING:
    from .annotated import predict_file
    from .job import Job
    from .map import write_map
    from .outputs import read_output
    from .planner import PlanSummary, plan
    from .predict import predict_image, predict_tile
    from .quicklook import write_quicklook
    from .result import Failure, Result
    from .runner import run
    from .window_arrays import iter_windows

_HOMES = {
    "Failure": ".result",
    "Job": ".job",
    "PlanSummary": ".planner",
    "Result": ".result",
    "iter_windows": ".window_arrays",
    "plan": ".planner",
    "predict_file": ".annotated",
    "predict_image": ".predict",
    "predict_tile": ".predict",
    "read_output": ".outputs",
    "run": ".runner",
    "write_map": ".map",
    "write_quicklook": ".quicklook",
}

__all__ = [
    "ClusterError",
    "Failure",
    "GeosweepError",
    "Job",
    "JobError",
    "ModelError",
    "OutputError",
    "PlanSummary",
    "RasterError",
    "Result",
    "SourceError",
    "StorageError",
    "iter_windows",
    "plan",
    "predict_file",
    "predict_image",
    "predict_tile",
    "read_output",
    "run",
    "write_map",
    "write_quicklook",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value
