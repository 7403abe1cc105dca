"""The code blocks of our documentation pages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import typer

from geosweep.pipeline.cli import app

ROOT = Path(__file__).parents[1]


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line of the page where it starts."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """All fenced code blocks of ``docs/PAGE``."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S)
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 2) for m in found]


def commands(shell: str) -> list[list[str]]:
    """The words of each ``geosweep`` command in lines of shell, without the name itself.

    An image of geosweep that is run has the command for its entry point.
    """
    found = []
    for line in shell.replace("\\\n", " ").splitlines():
        if "geosweep" not in line:
            continue
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            image = words[:2] == ["docker", "run"] and word.startswith("geosweep:")
            if image or (word == "geosweep" and (start == 0 or words[start - 1] in _ENDS)):
                rest = words[start + 1 :]
                end = next((at for at, word in enumerate(rest) if word in _ENDS), len(rest))
                found.append(rest[:end])
    return found


_ENDS = {"|", "||", "&", "&&", ";", ">", ">>"}


def check_command(words: list[str], *, mentioned: bool = False) -> None:
    """Have the command line's own parser take a command.

    A command that is only mentioned, as in a sentence, may stand there without arguments.

    Raises
    ------
    ValueError
        If there is no such command, or an option or argument is unknown, missing or of the wrong kind.
    """
    command, rest = typer.main.get_command(app), list(words)
    while rest and rest[0] in (getattr(command, "commands", None) or {}):
        command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
    if getattr(command, "commands", None) and rest != ["--help"]:
        raise ValueError(f"no such command: geosweep {shlex.join(words)}")
    if rest == ["--help"] or (mentioned and not rest):
        return
    try:
        command.make_context("geosweep", rest)
    except Exception as error:  # typer's own, of no public name
        raise ValueError(f"geosweep {shlex.join(words)}: {error}") from error
