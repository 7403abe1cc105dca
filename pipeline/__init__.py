"""The job: what a user imports to sweep rasters.

Names are looked up on first use, so that `import geosweep.pipeline` stays fast. No module here bears
the name of a public function: importing it would hide the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..catalog.errors import (
    ClusterError,
    DeviceMemoryError,
    GeosweepError,
    JobError,
    ModelError,
    OutputError,
    RasterError,
    SourceError,
    StorageError,
)
from ..catalog.lazy import lazy_names

if TYPE_CHECKING:
    from .annotated import predict_file
    from .grid_arrays import density_grid
    from .grid_files import DensityFile, write_density
    from .handle import JobHandle, JobState
    from .job import Job
    from .map import write_map
    from .outputs import read_output
    from .planner import PlanSummary, plan
    from .predict import predict_image, predict_tile
    from .quicklook import write_quicklook
    from .result import Failure, Result
    from .runner import run
    from .submission import submit
    from .updating import UpdateResult, update
    from .window_arrays import iter_windows


__all__ = [
    "ClusterError",
    "DensityFile",
    "DeviceMemoryError",
    "Failure",
    "GeosweepError",
    "Job",
    "JobError",
    "JobHandle",
    "JobState",
    "ModelError",
    "OutputError",
    "PlanSummary",
    "RasterError",
    "Result",
    "SourceError",
    "StorageError",
    "UpdateResult",
    "density_grid",
    "iter_windows",
    "plan",
    "predict_file",
    "predict_image",
    "predict_tile",
    "read_output",
    "run",
    "submit",
    "update",
    "write_density",
    "write_map",
    "write_quicklook",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".annotated": ("predict_file",),
        ".grid_arrays": ("density_grid",),
        ".grid_files": ("DensityFile", "write_density"),
        ".handle": (
            "JobHandle",
            "JobState",
        ),
        ".job": ("Job",),
        ".map": ("write_map",),
        ".outputs": ("read_output",),
        ".planner": (
            "PlanSummary",
            "plan",
        ),
        ".predict": (
            "predict_image",
            "predict_tile",
        ),
        ".quicklook": ("write_quicklook",),
        ".result": (
            "Failure",
            "Result",
        ),
        ".runner": ("run",),
        ".submission": ("submit",),
        ".updating": (
            "UpdateResult",
            "update",
        ),
        ".window_arrays": ("iter_windows",),
    },
)
