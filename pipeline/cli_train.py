"""`geosweep train`: detectors, crop models and tile filters from configuration files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..catalog.errors import TrainingError
from ._console import guarded, out

app = typer.Typer(no_args_is_help=True)

ConfigArgument = Annotated[
    Path, typer.Argument(help="Configuration (YAML).", metavar="CONFIG.yaml", show_default=False)
]
FastDevRunOption = Annotated[
    bool, typer.Option("--fast-dev-run", help="One batch of everything; writes nothing.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on from the last checkpoint in the output folder.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a training in the output folder.")
]
OutputOption = Annotated[
    str | None, typer.Option("-o", "--output", help="Folder; default: trainer.output.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Such as trainer.max_epochs=5; repeatable."),
]


@app.callback()
def _quiet() -> None:
    """Train models from configuration files."""
    import logging
    import warnings

    # Lightning's banners; what matters of them is in geosweep's own log. (Lightning sets the level of
    # its topmost loggers when it is imported.)
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    if not _leads():
        logging.getLogger("geosweep").setLevel(logging.ERROR)


def _leads() -> bool:
    """Whether this process speaks for all that train together: Lightning starts the others anew."""
    return all(int(os.environ.get(key, "0")) == 0 for key in ("RANK", "LOCAL_RANK", "NODE_RANK"))


@app.command("detector")
@guarded
def train_detector(
    config: ConfigArgument,
    output: OutputOption = None,
    set_: SetOption = None,
    fast_dev_run: FastDevRunOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Find the learning rate first, and train with it.")
    ] = False,
    show_batch: Annotated[
        Path | None,
        typer.Option("--show-batch", metavar="PNG", help="Draw one training batch, and stop."),
    ] = None,
    ray: Annotated[
        int | None,
        typer.Option("--ray", min=1, metavar="WORKERS", help="So many processes with Ray Train."),
    ] = None,
) -> None:
    """Train a detector; -o, --set and the like go over what the configuration says."""
    from ..models import training

    overrides = _overrides(output, set_)
    if show_batch is not None:
        out.print(f"batch: {training.draw_batch(config, show_batch, overrides=overrides)}")
        return
    if ray is not None:
        if fast_dev_run or find_lr:
            raise TrainingError("--ray goes neither with --fast-dev-run nor with --find-lr.")
        trained = training.train_detector_on_ray(
            config, ray, overrides=overrides, resume=resume, overwrite=overwrite
        )
    else:
        trained = training.train_detector(
            config,
            overrides=overrides,
            resume=resume,
            overwrite=overwrite,
            fast_dev_run=fast_dev_run,
            find_lr=find_lr,
        )
    if not _leads():
        return
    table = Table(show_header=False)
    table.add_row("labels", ", ".join(trained.labels))
    for name, value in trained.metrics.items():
        table.add_row(name, f"{value:.3f}")
    out.print(table)
    if trained.path is not None:
        out.print(f"weights: {trained.path}", soft_wrap=True, markup=False, highlight=False)


@app.command("anchors")
@guarded
def train_anchors(
    annotations: Annotated[
        Path, typer.Argument(help="Labelled boxes, in any format.", show_default=False)
    ],
    k: Annotated[
        int | None, typer.Option(min=1, help="Sizes over all levels; default: as many as now.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Training configuration whose anchors to compare with."),
    ] = None,
    scale: Annotated[
        float, typer.Option(min=1e-6, help="Pixels the detector sees for each of the image's.")
    ] = 1.0,
) -> None:
    """Suggest anchors that fit labelled boxes."""
    from ..models import training

    network = training.DetectorTraining.of(config).model.network if config else {}
    found = training.suggest_anchors(annotations, k, network=network, scale=scale)
    table = Table(title=f"Anchors for {found.boxes} boxes")
    for column in ("", "sizes for each level", "height / width", "mean IoU"):
        table.add_column(column, overflow="fold")
    table.add_column(f"recall at IoU {found.threshold:g}")
    for name, sizes, ratios, fit in (
        ("now", found.current_sizes, found.current_ratios, found.current),
        ("suggested", found.anchor_sizes, found.aspect_ratios, found.suggested),
    ):
        levels = " | ".join(", ".join(f"{size:g}" for size in level) for level in sizes)
        shown = ", ".join(f"{ratio:g}" for ratio in ratios)
        table.add_row(name, levels, shown, f"{fit.mean_iou:.3f}", f"{fit.recall:.1%}")
    out.print(table)
    out.print("For the training configuration:")
    out.print(found.to_yaml(), markup=False, highlight=False, soft_wrap=True)


def _overrides(output: str | None, settings: list[str] | None) -> dict[str, Any]:
    values = dict(_key_value(text) for text in settings or [])
    return values if output is None else {**values, "trainer.output": output}


def _key_value(text: str) -> tuple[str, Any]:
    import yaml

    key, separator, value = text.partition("=")
    if not separator or not key:
        raise TrainingError(f"--set is {text!r}, but must be KEY=VALUE, as trainer.max_epochs=5.")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise TrainingError(f"--set {key} has a value that is not YAML: {value!r}.") from error


@app.command("cropmodel")
@guarded
def train_cropmodel(
    config: ConfigArgument,
    output: OutputOption = None,
    set_: SetOption = None,
    fast_dev_run: FastDevRunOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Train a classifier of crops; -o and --set go over what the configuration says."""
    from ..models.training import train_cropmodel

    trained = train_cropmodel(
        config,
        overrides=_overrides(output, set_),
        resume=resume,
        overwrite=overwrite,
        fast_dev_run=fast_dev_run,
    )
    if not _leads():
        return
    summary = Table(show_header=False)
    for name, count in trained.crop_model.class_counts().items():
        summary.add_row(f"crops of {name}", str(count))
    for name, value in trained.metrics.items():
        summary.add_row(name, f"{value:.3f}")
    out.print(summary)
    if trained.path is not None:
        out.print(f"crop model: {trained.path}", soft_wrap=True, markup=False, highlight=False)


@app.command("tilefilter")
@guarded
def train_tilefilter(
    config: ConfigArgument,
    output: OutputOption = None,
    set_: SetOption = None,
    fast_dev_run: FastDevRunOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Train a filter of empty windows, and choose its threshold on held-out ground."""
    from ..models.training import train_tilefilter

    trained = train_tilefilter(
        config,
        overrides=_overrides(output, set_),
        resume=resume,
        overwrite=overwrite,
        fast_dev_run=fast_dev_run,
    )
    table = Table(show_header=False)
    for name, value in trained.summary().items():
        table.add_row(name, value)
    out.print(table)
    out.print(trained.threshold.statement, highlight=False)
