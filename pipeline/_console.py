"""What every command shares: the two consoles, and how errors end."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from rich.console import Console

from ..catalog.errors import GeosweepError

P = ParamSpec("P")

out = Console()
err = Console(stderr=True)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Errors of ours are one sentence on stderr and an exit code, never a traceback."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except GeosweepError as error:
            err.print(f"geosweep: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            err.print("geosweep: interrupted; what is finished is kept, the same command goes on.")
            raise typer.Exit(130) from None

    return wrapper
