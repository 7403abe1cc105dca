"""`geosweep train`: detectors, crop models and tile filters from configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
OutputOption = Annotated[
    str | None, typer.Option("-o", "--output", help="Folder; default: trainer.output.")
]


@app.callback()
def _quiet() -> None:
    """Train models from configuration files."""
    import logging

    # Lightning's banners; what matters of them is in geosweep's own log.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
