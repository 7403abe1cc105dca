"""`geosweep submit`, `status`, `logs`, `stop`: jobs on a cluster that is elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ._console import err, guarded, out

if TYPE_CHECKING:
    from .handle import JobHandle, JobState

AddressOption = Annotated[
    str | None,
    typer.Option(
        help="The cluster's dashboard, such as http://head:8265; default: RAY_API_SERVER_ADDRESS, "
        "RAY_ADDRESS, or a cluster on this machine.",
        show_default=False,
    ),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `submit` told it.")]


@guarded
def submit(
    job_file: Annotated[
        Path, typer.Argument(metavar="JOB.yaml", help="Job file.", show_default=False)
    ],
    address: AddressOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the log, and end as the job does.")
    ] = False,
    py_module: Annotated[
        list[Path] | None,
        typer.Option(help="Your own module that a model is named by; may be repeated."),
    ] = None,
    ship: Annotated[
        bool | None,
        typer.Option(
            "--ship/--no-ship",
            help="Send this geosweep along; default: unless the image has the very same.",
            show_default=False,
        ),
    ] = None,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="All nodes see the job's local paths.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="First so many scenes.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed scenes again.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take over and redo all.")] = False,
) -> None:
    """Run a job on a Ray cluster; the same job is never started twice at a time."""
    from .job import Job
    from .submission import submit as submit_job

    handle = submit_job(
        Job.from_yaml(job_file),
        address=address,
        py_modules=py_module or (),
        ship=ship,
        shared_paths=shared_paths,
        limit=limit,
        retry_failed=retry_failed,
        overwrite=overwrite,
    )
    word = "runs already" if handle.attached else "submitted"
    err.print(f"{word}: {handle.id} at {handle.address}", highlight=False, soft_wrap=True)
    if follow:
        _follow(handle)
    else:
        sys.stdout.write(f"{handle.id}\n")


@guarded
def status(
    job_id: IdArgument,
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers for scripts.")] = False,
) -> None:
    """State and numbers of a submitted job."""
    from .handle import JobHandle

    state = JobHandle.attach(job_id, address).status()
    if as_json:
        sys.stdout.write(json.dumps(state.to_dict(), indent=2) + "\n")
    else:
        out.print(_table(state))


@guarded
def logs(
    job_id: IdArgument,
    address: AddressOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends, and end as it does.")
    ] = False,
) -> None:
    """Log of a submitted job."""
    from .handle import JobHandle

    handle = JobHandle.attach(job_id, address)
    if follow:
        _follow(handle)
    else:
        sys.stdout.write(handle.logs())


@guarded
def stop(job_id: IdArgument, address: AddressOption = None) -> None:
    """Stop a submitted job; what is finished is kept, and submitting it again goes on."""
    from .handle import JobHandle

    handle = JobHandle.attach(job_id, address)
    stopped = handle.stop()
    state = handle.status()
    if not stopped:
        out.print(f"{job_id} had ended: {state.state}", highlight=False, soft_wrap=True)
        return
    done = f" after {state.progress.scenes_done} scenes" if state.progress else ""
    out.print(
        f"{job_id} stopped{done}; submit the same job to go on", highlight=False, soft_wrap=True
    )


def _follow(handle: JobHandle) -> None:
    try:
        code = _show(handle)
    except KeyboardInterrupt:
        err.print(
            f"geosweep: the job goes on; see `geosweep status {handle.id}`, or end it with "
            f"`geosweep stop {handle.id}`.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    if code:
        raise typer.Exit(code)


def _show(handle: JobHandle) -> int:
    """Follow a job: bars on a terminal, plain lines elsewhere."""
    if not out.is_terminal:
        return handle.follow()
    from .progress import FollowedLog

    with FollowedLog(out) as log:
        return handle.follow(log)


def _table(state: JobState) -> Table:
    table = Table(title=state.id, show_header=False)
    code = f", exit code {state.exit_code}" if state.exit_code else ""
    table.add_row("state", f"{state.state}{code}")
    if state.message:
        table.add_row("reason", state.message)
    for name, time in (("started", state.started), ("ended", state.ended)):
        if time is not None:
            table.add_row(name, f"{time:%Y-%m-%d %H:%M:%S} UTC")
    numbers = state.progress
    if numbers is not None:
        failed = f", {numbers.failed} failed" if numbers.failed else ""
        table.add_row("scenes", f"{numbers.scenes_done} of {numbers.scenes}{failed}")
        table.add_row("windows", f"{numbers.windows} ({numbers.windows_per_second:.1f}/s)")
        table.add_row("detections", str(numbers.detections))
        table.add_row("crops", f"{numbers.crops} ({numbers.crops_per_second:.1f}/s)")
        table.add_row("load", numbers.load)
        if numbers.seconds_left and state.state == "running":
            table.add_row("time left", numbers.time_left)
    return table
