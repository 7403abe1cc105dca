"""What a run leaves: its rows, to be compared with those of another, and what it gave back to a cluster."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from grpc import RpcError
from ray._private.internal_api import node_stats
from ray._private.state import actors

from geosweep.pipeline import Result


def seen_in(result: Result) -> dict[str, Any]:
    """What a run left, as JSON; the rows of each scene as a hash over all columns."""
    table = result.to_arrow().sort_by("detection_id")
    ids = table["scene_id"].to_pylist()
    return {
        "counts": {k: v for k, v in result.counts.items() if k != "source_duplicates"},
        "failures": {failure.scene_id: failure.error for failure in result.failures},
        "halvings": result.report()["halvings"],
        "rows": {n: _hash(table.filter(pc.equal(table["scene_id"], n))) for n in sorted(set(ids))},
        "number": table.num_rows,
        "ids": len(set(table["detection_id"].to_pylist())),
    }


def _hash(table: pa.Table) -> str:
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return hashlib.sha256(content.getvalue()).hexdigest()


def stored() -> dict[str, int]:
    """Bytes that the nodes' object stores must keep, which Ray doesn't count among what is available.

    A process killed while it hands over an answer can leave it in its node's store without anyone to
    whom it belongs (Ray 2.60 by itself does so, once in some fifty kills). Nobody keeps it there: it
    goes as soon as its room is needed, so it isn't counted.
    """
    used = 0
    for node in ray.nodes():
        if node["Alive"]:
            try:
                stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
            except RpcError:  # it is gone, which Ray takes some seconds to see
                return {"stored bytes": -1}
            used += stats.store_stats.object_store_bytes_primary_copy
    return {"stored bytes": used} if used else {}


def rest(patience: float = 30) -> dict[str, Any]:
    """What is not given back to the cluster, after some patience: nothing, it is hoped."""
    end = time.monotonic() + patience
    while True:
        free = ray.available_resources()
        taken = {k: v - free.get(k, 0) for k, v in ray.cluster_resources().items()}
        missing = {name: number for name, number in taken.items() if number}
        missing |= stored()
        alive = [a["ActorClassName"] for a in actors().values() if a["State"] != "DEAD"]
        if not (missing or alive) or time.monotonic() > end:
            return {"missing": missing, "alive": alive}
        time.sleep(0.1)
