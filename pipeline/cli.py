"""The `geosweep` command: thin, every command is a call that Python users have, too."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from ..catalog.errors import JobError
from . import (
    cli_catalog,
    cli_density,
    cli_evaluate,
    cli_models,
    cli_submit,
    cli_train,
    cli_update,
)
from ._console import err, guarded, out
from ._signals import terminate_as_interrupt
from ._tables import plan_table, result_table

app = typer.Typer(
    help="Sweep cloud-optimized rasters with a detector and crop classifiers.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

EngineOption = Annotated[str, typer.Option(help="ray (actors) or local (this process).")]
AddressOption = Annotated[
    str | None, typer.Option(help="Ray cluster to join, such as auto; default: a local one.")
]
JobArgument = Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)]


@app.callback()
def _setup(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    handler = RichHandler(console=err, show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("geosweep").setLevel(logging.DEBUG if verbose else logging.INFO)


@app.command()
@guarded
def detect(
    rasters: Annotated[
        list[str], typer.Argument(help="Files, URLs or folders.", show_default=False)
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder or s3://bucket/prefix.")],
    detector: Annotated[str, typer.Option(help="Name, file or hf:owner/repo.")] = "geosweep/tree",
    tile_filter: Annotated[
        str | None, typer.Option(help="Classifier that keeps empty windows from the detector.")
    ] = None,
    crop_model: Annotated[
        list[str] | None, typer.Option(help="Classifier for the crops; may be repeated.")
    ] = None,
    window: Annotated[int, typer.Option(help="Window side in pixels.")] = 400,
    overlap: Annotated[
        float, typer.Option(help="Share of a window its neighbour has, too.")
    ] = 0.05,
    score: Annotated[
        float | None,
        typer.Option(help="Least score; default: the model's own (0.3 for geosweep/tree)."),
    ] = None,
    bbox: Annotated[str | None, typer.Option(help="W,S,E,N in degrees.")] = None,
    bands: Annotated[
        str | None, typer.Option(help="Three bands: numbers or names, such as 1,2,3.")
    ] = None,
    rescale: Annotated[
        str | None, typer.Option(help="LOW,HIGH: values of black and white.")
    ] = None,
    resolution: Annotated[float | None, typer.Option(help="GSD in metres to detect at.")] = None,
    crs: Annotated[str, typer.Option(help="CRS of the output; none for pixels.")] = "EPSG:4326",
    engine: EngineOption = "local",
    address: AddressOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed rasters again.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo all.")] = False,
) -> None:
    """Detect objects in rasters; no catalog needed."""
    from .job import Job, crop_prefix

    source: dict[str, Any] = {"rasters": rasters}
    if bbox is not None:
        source["bbox"] = _numbers(bbox, "--bbox", 4)
    if bands is not None:
        source["bands"] = _bands(bands)
    if rescale is not None:
        source["rescale"] = [_numbers(rescale, "--rescale", 2)]
    crops = [{"name": crop_prefix(i), "model": model} for i, model in enumerate(crop_model or [])]
    job = Job.from_dict(
        {
            "name": "detect",
            "source": source,
            "windows": {"size": window, "overlap": overlap, "resolution": resolution},
            "detector": {"model": detector, "score_threshold": score},
            "tile_filter": None if tile_filter is None else {"model": tile_filter},
            "crop_models": crops,
            "output": {"path": output, "crs": None if crs.lower() == "none" else crs},
        },
        where="the arguments",
    )
    _run(job, engine, address, limit=None, retry_failed=retry_failed, overwrite=overwrite)


@app.command()
@guarded
def run(
    job_file: JobArgument,
    engine: EngineOption = "ray",
    address: AddressOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First so many scenes.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed scenes again.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take over and redo all.")] = False,
) -> None:
    """Run a job, or go on with it. Safe to repeat: what is done is left alone."""
    from .job import Job

    job = Job.from_yaml(job_file)
    _run(job, engine, address, limit=limit, retry_failed=retry_failed, overwrite=overwrite)


app.command()(cli_update.update)


@app.command()
@guarded
def plan(
    job_file: JobArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers for scripts.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="First so many scenes.")] = None,
    detectors: Annotated[int, typer.Option(min=1, help="Detectors that would work at a time.")] = 1,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of one detector's machine, for the cost.")
    ] = None,
    measure: Annotated[bool, typer.Option(help="Time one window here, to estimate hours.")] = True,
) -> None:
    """Dry run: what a job would read, and how long it would take."""
    from .job import Job
    from .planner import plan as make_plan

    job = Job.from_yaml(job_file)
    summary = make_plan(
        job, limit=limit, measure=measure, detectors=detectors, price_per_hour=price_per_hour
    )
    if as_json:
        sys.stdout.write(json.dumps(summary.to_dict(), indent=2) + "\n")
    else:
        out.print(plan_table(summary))


@app.command(name="map")
@guarded
def map_(
    output: Annotated[str, typer.Argument(help="Output of a run.", show_default=False)],
    path: Annotated[
        Path | None, typer.Option("-o", "--output", help="Page to write; default OUTPUT/map.html.")
    ] = None,
) -> None:
    """Make an interactive page of the results, which works offline."""
    from .map import write_map

    out.print(f"map: {write_map(output, path)}", soft_wrap=True)


# Here, so that `geosweep --help` lists them after the commands above.
app.command()(cli_submit.submit)
app.command()(cli_submit.status)
app.command()(cli_submit.logs)
app.command()(cli_submit.stop)
app.command()(cli_density.density)
app.command()(cli_evaluate.evaluate)
app.add_typer(cli_train.app, name="train")
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_catalog.app, name="catalog")


def _run(
    job: Any,
    engine: str,
    address: str | None,
    *,
    limit: int | None,
    retry_failed: bool,
    overwrite: bool,
) -> None:
    from .runner import run as run_job

    result = run_job(
        job,
        engine=engine,  # type: ignore[arg-type]
        address=address,
        limit=limit,
        retry_failed=retry_failed,
        overwrite=overwrite,
    )
    out.print(result_table(result))
    for failure in result.failures:
        err.print(f"failed: {failure.scene_id}: {failure.error}", markup=False, soft_wrap=True)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _numbers(text: str, option: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise JobError(f"{option} is {text!r}, but must be {count} numbers separated by commas.")
    return values


def _bands(text: str) -> list[int | str]:
    bands = [part.strip() for part in text.split(",")]
    if len(bands) != 3 or not all(bands):
        raise JobError(
            f"--bands is {text!r}, but must be three numbers or names separated by commas."
        )
    return [int(band) if band.isdecimal() else band for band in bands]


def main() -> None:
    """Run the command line."""
    terminate_as_interrupt()
    app()


if __name__ == "__main__":
    main()
