"""What a run does about its records once the scenes are done, and what rows weigh; for `scaling.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.planning import _records
from geosweep.catalog import open_storage, write_snapshot
from geosweep.catalog.ledger import Ledger

RECORDS = 20_000


def rows_on_disk(output: Path) -> dict[str, float]:
    """Rows and bytes of an output's data files, and bytes of its items."""
    files = list((output / "data").rglob("*.parquet"))
    items = list((output / "items").glob("*.json"))
    return {
        "rows": sum(pq.read_metadata(file).num_rows for file in files),
        "data_bytes": sum(file.stat().st_size for file in files),
        "items": len(items),
        "item_bytes": sum(item.stat().st_size for item in items),
    }


def end_of_run(folder: Path) -> dict[str, Any]:
    """CPU time of one core for reading the ledger and writing the snapshot of so many records."""
    (folder / "items").mkdir(parents=True)
    size = 0
    for name, text in _records(RECORDS):
        size += (folder / "items" / f"{name}.json").write_text(text)
    storage = open_storage(folder)
    ledger = _cpu_seconds(lambda: Ledger.read(storage).close())
    snapshot = _cpu_seconds(lambda: write_snapshot(storage))
    return {
        "records": RECORDS,
        "item_bytes": size / RECORDS,
        "ledger_cpu_s": ledger,
        "snapshot_cpu_s": snapshot,
        "snapshot_bytes": (folder / "items.parquet").stat().st_size / RECORDS,
    }


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
