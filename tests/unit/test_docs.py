"""What the documentation says of keys, defaults and options is so."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from geosweep.models.data.config import AugmentConfig, DataConfig, WindowConfig
from geosweep.models.training.config import OptimizerConfig, TrainerConfig
from geosweep.models.training.cropconfig import CropData, CropNetwork, CropTraining
from geosweep.models.training.detectorconfig import DetectorTraining, ModelConfig
from geosweep.models.training.tileconfig import TileFilterTraining, TileModel, TileThresholds
from geosweep.pipeline import Job
from tests.docs import ROOT, blocks, check_command, commands

PAGES = [ROOT / "README.md", ROOT / "infra/README.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS = {
    "# detector.yaml": DetectorTraining,
    "# cropmodel.yaml": CropTraining,
    "# tilefilter.yaml": TileFilterTraining,
    "# job.yaml": Job,
}
TABLES = {
    "`model`": ModelConfig,
    "`data`": DataConfig,
    "`data.windows`": WindowConfig,
    "`data.augment`": AugmentConfig,
    "`optimizer`": OptimizerConfig,
    "`trainer`": TrainerConfig,
    "`model` of a crop model": CropNetwork,
    "`data` of a crop model": CropData,
    "A tile filter": TileFilterTraining,
    "`model` of a tile filter": TileModel,
    "`threshold` of a tile filter": TileThresholds,
}
BLOCKS = {"data", "model", "optimizer", "threshold", "trainer", "windows", "augment"}
"""Keys that hold blocks, which have tables of their own."""


@pytest.mark.parametrize("kind", KINDS)
def test_configurations_of_the_training_page_are_valid(kind):
    (text,) = [
        block.text
        for block in blocks("training.md")
        if block.language == "yaml" and block.text.splitlines()[0] == kind
    ]
    assert KINDS[kind].model_validate(yaml.safe_load(text))


def test_every_configuration_of_the_training_page_is_checked():
    found = [block for block in blocks("training.md") if block.language == "yaml"]
    assert sorted(block.text.splitlines()[0] for block in found) == sorted(KINDS)


def table_rows(heading: str) -> dict[str, str]:
    """Keys and defaults in the first table under a heading of the training page."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", page, flags=re.M | re.S)
    rows: dict[str, str] = {}
    for keys, default in re.findall(r"^\| (`.+?`) \| (.*?) ?\| .* \|$", section, flags=re.M):
        names = re.findall(r"`(\w+)`", keys)
        defaults = re.split(r", (?![^\[]*\])", default)
        # One default for several keys, or one for each.
        rows |= dict(
            zip(names, defaults * len(names) if len(defaults) == 1 else defaults, strict=False)
        )
    return rows


@pytest.mark.parametrize("heading", TABLES)
def test_tables_of_keys_are_complete_and_their_defaults_true(heading):
    block = TABLES[heading]
    rows = table_rows(heading)
    where = f"the table under {heading!r} in docs/training.md"
    assert set(rows) - BLOCKS == set(block.model_fields) - BLOCKS, f"mend {where}"
    for key, shown in rows.items():
        field = block.model_fields[key]
        if field.is_required():
            assert shown == ""
        else:
            default = field.get_default(call_default_factory=True)
            default = list(default) if isinstance(default, tuple) else default
            assert yaml.safe_load(shown) == default, f"mend {key} in {where}"


def shell(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, flags=re.M | re.S))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_commands_can_be_typed_as_they_stand(page):
    for words in commands(shell(page)):
        check_command(words)
    for inline in re.findall(r"`(geosweep [^`]*)`", page.read_text(encoding="utf-8")):
        check_command(shlex.split(inline)[1:], mentioned=True)


@pytest.mark.parametrize(
    "line",
    [
        "geosweep sweep job.yaml",
        "geosweep run job.yaml --adress auto",
        "geosweep run",
        "geosweep run job.yaml --limit many",
        "geosweep run job.yaml other.yaml",
        "geosweep catalog",
        "cd there && geosweep status | cat",
    ],
)
def test_what_cannot_be_typed_is_found(line):
    (words,) = commands(line)
    with pytest.raises(ValueError, match="geosweep"):
        check_command(words)


def test_the_training_page_shows_commands():
    assert len(commands(shell(ROOT / "docs/training.md"))) > 8


def test_the_estimate_of_a_cloud_run_is_reckoned_from_what_was_measured():
    (code,) = [block.text for block in blocks("cluster.md") if "def cost" in block.text]
    names: dict[str, Any] = {}
    exec(code, names)
    shown = re.findall(r"^(cost\(.*\)) +# (\(.*\))$", code, flags=re.M)
    assert len(shown) == 3
    for call, result in shown:
        assert str(eval(call, names)) == result
    # 27 windows of 400 px, 380 px apart, reach across 10,000 px; 26 don't.
    assert names["windows"] == 1000 * (math.ceil((10_000 - 400) / 380) + 1) ** 2
    results = json.loads((ROOT / "benchmarks/results/backends.json").read_text())["models"]
    for name, model in {"tree": "geosweep/tree", "retinanet": "RetinaNet-R50"}.items():
        measured = results[model]["openvino"]["cpu_seconds_per_window"]
        assert names[name] == pytest.approx(measured, rel=0.2)


def test_tests_that_pages_name_are_there():
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", sources, flags=re.M))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) > 5
    assert named <= there
