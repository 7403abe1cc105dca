"""What `smoke.py` counts, held against what was committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

COMMITTED = Path(__file__).parent / "smoke.json"


class Measure(NamedTuple):
    """A count that the clock has no part in; less of it is better.

    Parameters
    ----------
    name
        What was counted, per what.
    value
        How many.
    tolerance
        By what share of the committed value it may be more. 0 for what is whole numbers of requests
        and calls; more where allocators and caches have a say.
    """

    name: str
    value: float
    tolerance: float = 0.0


def committed() -> dict[str, float]:
    """The committed values by name."""
    return json.loads(COMMITTED.read_text())


def accept(measures: Sequence[Measure]) -> None:
    """Make what was measured what later runs are held to; the rest stays."""
    values = committed() if COMMITTED.exists() else {}
    values |= {measure.name: round(measure.value, 4) for measure in measures}
    COMMITTED.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def refusals(measures: Sequence[Measure], was: dict[str, float]) -> list[str]:
    """A sentence for each measure that is worse than it was, or was never committed."""
    found = []
    for name, value, tolerance in measures:
        if name not in was:
            found.append(f"{name}: {value:.4g}, of which nothing is committed.")
        elif value > was[name] * (1 + tolerance) + 1e-4:  # values are committed to four places
            found.append(f"{name}: was {was[name]:.4g} (+{tolerance:.0%} allowed), is {value:.4g}.")
    return found


def is_better(measure: Measure, was: dict[str, float]) -> bool:
    """Whether there is less of it than the tolerance explains."""
    before = was.get(measure.name)
    return before is not None and measure.value < before * (1 - measure.tolerance) - 1e-4
