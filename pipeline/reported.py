"""A run's result where the run was not: from its report, and from its output if that is seen here."""

from __future__ import annotations

from typing import Any

from ..catalog import open_storage, read_collection
from ..catalog.errors import GeosweepError
from .halving import Halvings
from .job import Job
from .result import Failure, Result
from .rows import CropColumns, RowSchema


def reported(report: dict[str, Any]) -> Result:
    """The result that a report tells of, as `Result.report` gives it.

    Its rows can be read if this machine sees the output, too; otherwise asking for them is an error.
    """
    result = Result(
        output=report["output"],
        counts=report["counts"],
        failures=[Failure(each["scene_id"], each["error"]) for each in report["failures"]],
        timings=report["timings"],
        engine=report["engine"],
        devices=report["devices"],
        halvings={name: Halvings(**each) for name, each in report.get("halvings", {}).items()},
    )
    try:
        storage = open_storage(result.output)
        collection = read_collection(storage)
    except GeosweepError:  # no credentials here, say: counts and failures are told all the same
        return result
    if collection is not None:
        job = Job.from_dict(collection["geosweep:job"], where=f"the collection of {result.output}")
        crops = tuple(CropColumns(spec.name, (), spec.scores) for spec in job.crop_models)
        result._storage = storage
        result._schema = RowSchema((), "", crops, job.output.crs)
    return result
