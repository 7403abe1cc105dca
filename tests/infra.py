"""The files in infra/, as tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.docs import ROOT

INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
SECRET = re.compile(r"key|secret|token|password|credential", re.IGNORECASE)


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(path: Path, kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents(path) if document["kind"] == kind]
    return found


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings in a document."""
    if isinstance(value, dict):
        yield value
    for part in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from nodes(part)


def pods(path: Path) -> list[dict[str, Any]]:
    """The specs of all pods of a file."""
    return [
        node for document in documents(path) for node in nodes(document) if "containers" in node
    ]


def ray_cluster(path: Path) -> dict[str, Any]:
    """The spec of the Ray cluster that a RayCluster, RayJob or RayCronJob makes."""
    (found,) = [
        node for document in documents(path) for node in nodes(document) if "headGroupSpec" in node
    ]
    return found


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """Head and workers of a Ray cluster's spec."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def header(path: Path) -> str:
    """The comment that a file begins with, without its marks."""
    lines = path.read_text().splitlines()
    end = next(at for at, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line[2:] for line in lines[:end])


def header_commands(path: Path) -> str:
    """The indented lines of a file's first comment: what is to be typed."""
    return "\n".join(line for line in header(path).splitlines() if line.startswith("  "))
