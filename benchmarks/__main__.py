"""Run one benchmark by name, or all of them: `python -m benchmarks [NAME | --list]`."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path


def names() -> list[str]:
    """Modules of this folder that don't start with an underscore."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if not module.name.startswith("_"))


def main(arguments: list[str]) -> int:
    known = names()
    if arguments == ["--list"]:
        print("\n".join(known))
        return 0
    unknown = [name for name in arguments if name not in known]
    if unknown:
        print(
            f"There is no benchmark {unknown[0]!r}; there are {', '.join(known)}.", file=sys.stderr
        )
        return 2
    for name in arguments or known:
        print(f"== {name}", flush=True)
        if status := import_module(f"benchmarks.{name}").main():
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
