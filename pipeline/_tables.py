"""What commands print: the tables of a run and of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from .planner import PlanSummary
    from .result import Result


def result_table(result: Result) -> Table:
    """What a run found and left out."""
    counts = result.counts
    table = Table(title=f"geosweep: {result.output}", show_header=False)
    states = ", ".join(f"{counts[key]} {key}" for key in ("succeeded", "empty", "failed"))
    table.add_row("scenes", f"{counts['scenes']} ({states}); {counts['scenes_now']} done now")
    skipped = {
        "nodata": counts["windows_skipped_nodata"],
        "outside the AOI": counts["windows_skipped_aoi"],
        "another scene's": counts["windows_skipped_owned"],
        "empty by the tile filter": counts["windows_skipped_filter"],
        "failed": counts["windows_failed"],
    }
    left_out = "".join(f", {value} {key}" for key, value in skipped.items() if value)
    table.add_row(
        "windows", f"{counts['windows']} ({counts['windows_processed']} processed{left_out})"
    )
    kept = {
        "uncertain": counts["windows_uncertain"],
        "empty and something": counts["windows_empty_and_something"],
    }
    if any(kept.values()):
        doubts = ", ".join(f"{value} {key}" for key, value in kept.items() if value)
        table.add_row("tile filter", f"kept in doubt: {doubts}")
    table.add_row("detections", str(counts["detections"]))
    table.add_row("duplicates removed", str(counts["duplicates_removed"]))
    crops = {
        "without data, so without a class": counts["crops_outside"],
        "partly beside their raster": counts["crops_partly_outside"],
    }
    if any(crops.values()):
        table.add_row("crops", ", ".join(f"{value} {key}" for key, value in crops.items() if value))
    for model, halvings in result.halvings.items():
        table.add_row(
            "memory",
            f"ran out {halvings.times} times for the {model}, which went on with batches of "
            f"{halvings.batch_size}",
        )
    if counts["windows_now"]:
        table.add_row("speed", f"{result.windows_per_second:.2f} windows/s, all included")
    return table


def plan_table(summary: PlanSummary) -> Table:
    """What a run would read, and how long it would take."""
    table = Table(title="Plan", show_header=False)
    bad = f" ({summary.unreadable} unreadable)" if summary.unreadable else ""
    table.add_row("scenes", f"{summary.scenes}{bad}")
    table.add_row(
        "windows",
        f"{summary.windows_to_read} to read of {summary.windows} "
        f"({summary.windows_skipped_aoi} outside the AOI, {summary.windows_skipped_owned} another scene's)",
    )
    table.add_row("area", f"{summary.area_km2:,.4g} km²")
    table.add_row("pixels", f"{summary.pixels:,}")
    table.add_row("decoded", f"{summary.bytes / 1e9:,.3g} GB")
    if summary.seconds_per_window is not None and summary.hours is not None:
        table.add_row(
            "time",
            f"{summary.hours:,.3g} h at {summary.seconds_per_window:.3g} s a window, measured here",
        )
    if summary.cost is not None:
        table.add_row("cost", f"{summary.cost:,.2f}")
    return table
