"""Jobs to a cluster that is elsewhere, over Ray's Jobs API."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.errors import JobError
from ..catalog.hrefs import public_href, stable_href
from ._bundle import JOB_FILE, local_paths, portable, write_bundle
from ._wheel import content_hash, geosweep_wheel
from .handle import STOP_SECONDS, JobHandle, waiting
from .progress import EVERY_VARIABLE

if TYPE_CHECKING:
    from ._jobsapi import JobsApi
    from .job import Job

IMAGE_JOB = "geosweep-image"
"""Asks once on each cluster which geosweep its image has; its log is the answer for ever after."""

LINE_SECONDS = "10"


def submit(
    job: Job,
    *,
    address: str | None = None,
    py_modules: Sequence[str | Path] = (),
    ship: bool | None = None,
    shared_paths: bool = False,
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> JobHandle:
    """Run a job on a Ray cluster, and come back at once.

    The job's content travels, not its file; a file of `source.intersects` goes along. The same job,
    submitted again while it runs, is not started twice: the handle is that of the running one, whose
    modules and options stand.

    Parameters
    ----------
    job
        What to do.
    address
        Of the cluster's dashboard, such as ``http://head:8265``. None is what
        ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS`` says, else a cluster on this machine.
    py_modules
        The user's own modules that models are named by (``module:factory``): folders of packages, .py
        files, or wheels without dependencies.
    ship
        True sends this geosweep to the cluster as a wheel, False relies on the one in its image. None
        sends it unless the image has the very same one.
    shared_paths
        Local paths in the job are on a file system that all nodes of the cluster see under the same
        names.
    limit, retry_failed, overwrite
        As for `run`.

    Returns
    -------
    JobHandle
        Of the new job, or of the one that runs already.

    Raises
    ------
    JobError
        If local paths in the job can't be seen by the cluster, or a module can't be shipped.
    ClusterError
        If the cluster can't be reached, or refuses.
    """
    from ._jobsapi import JobsApi

    api = JobsApi(address)
    job = portable(job)
    paths = [] if shared_paths else local_paths(job)
    if paths and api.is_elsewhere():
        verb, pronoun = ("is a path", "it") if len(paths) == 1 else ("are paths", "them")
        raise JobError(
            f"{', '.join(paths)} {verb} on one machine, and the cluster at {api.address} has others: use "
            f"URLs such as s3://bucket/prefix, or say that all nodes see {pronoun} (--shared-paths)."
        )
    base = submission_id(job)
    running, attempts = _attempts(api, base)
    if running is not None:
        return JobHandle(api, running, attached=True)
    options = {"limit": limit, "retry_failed": retry_failed, "overwrite": overwrite}
    with tempfile.TemporaryDirectory(prefix="geosweep-submit-") as folder:
        wheels = write_bundle(Path(folder), job, options, [Path(module) for module in py_modules])
        if ship or (ship is None and _image_content(api) != content_hash()):
            wheels.insert(0, geosweep_wheel())
        env: dict[str, Any] = {
            "working_dir": folder,
            "env_vars": {
                EVERY_VARIABLE: os.environ.get(EVERY_VARIABLE, LINE_SECONDS),
                # Ray kills after 3 s what it asked to end; to commit a scene may take longer.
                "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
            },
        }
        if wheels:
            env["py_modules"] = [str(wheel) for wheel in wheels]
        about = {"name": job.name, "output": public_href(job.output.path)}
        job_id = base if attempts == 0 else f"{base}-{attempts + 1}"
        # Whoever submits the same job at the same moment chooses the same id, and Ray lets one win.
        new = api.submit(job_id, f"python -m geosweep.pipeline.submitted {JOB_FILE}", env, about)
    return JobHandle(api, job_id, attached=not new)


def submission_id(job: Job) -> str:
    """The id of a job's first submission: the same for the same scenes, models and output.

    What only decides how fast it goes (batch sizes, actors) does not count.
    """
    models = [job.detector.model, *(spec.model for spec in job.crop_models)]
    if job.tile_filter is not None:
        models.append(job.tile_filter.model)
    source = job.source.model_dump(mode="json", exclude={"intersects"})
    # Models count by name: their files may lie where only the cluster sees them. The ground of
    # source.intersects is in the fingerprint.
    content = [job.fingerprint({}), models, source, job.output.model_dump(mode="json")]
    text = json.dumps(_stable(content), sort_keys=True)
    name = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:40]
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return "-".join(dict.fromkeys(filter(None, ("geosweep", name, digest))))


def _attempts(api: JobsApi, base: str) -> tuple[str | None, int]:
    """The one of a job's submissions that has not ended, if any; and how many there were."""
    pattern = re.compile(re.escape(base) + r"(?:-(\d+))?")
    found = {int(m[1] or 1): m[0] for m in map(pattern.fullmatch, api.ids(base)) if m}
    if not found:
        return None, 0
    last = max(found)
    ended = api.info(found[last]).status.is_terminal()
    return (None if ended else found[last]), last


def _image_content(api: JobsApi) -> str | None:
    """Hash of the geosweep in the cluster's image; None if there is none."""
    code = "from geosweep.pipeline._wheel import content_hash; print('image:', content_hash())"
    api.submit(IMAGE_JOB, f'python -c "{code}" || echo "image: none"', {}, {"name": IMAGE_JOB})
    for _ in waiting(60.0):
        if api.info(IMAGE_JOB).status.is_terminal():
            break
    found = re.findall(r"^image: ([0-9a-f]{16})$", api.logs(IMAGE_JOB), re.MULTILINE)
    return found[-1] if found else None


def _stable(value: Any) -> Any:
    """Without what changes from one signing of a URL to the next, or must not be told."""
    if isinstance(value, str):
        return stable_href(value) if "://" in value else value
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items()}
    return [_stable(item) for item in value] if isinstance(value, list) else value
